"""A finished model's folder: written whole or not at all, and built again from it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import save_file

from data.files import recover, sha256, whole_folder
from pipelines.serving.artifact import FACTS, FORMAT, MANIFEST, SPEC, WEIGHTS, fill, model_digest, read, spec

if TYPE_CHECKING:
    from models.contract import GenerativeModel


def save(model: GenerativeModel, folder: str | Path, facts: Mapping[str, Any]) -> str:
    """Write a finished model's folder, whole or not at all, replacing an older one.

    Arguments:
        model: The model; its `state_dict()` is what is kept.
        folder: Where, for example `runs/digits/models/vae`.
        facts: What `model.json` says: the spec for `models.build` (`family`, `config`, `domain`,
            `classes`) and whatever else is worth knowing (`dataset`, `data_digest`, `run_id`, …).
    Returns:
        The model's digest (see `model_digest`).
    Raises:
        ValueError: If `facts` lacks a key of the spec or holds what JSON cannot say.
        OSError: If the folder cannot be written; an older model stays as it was.
    """
    folder = Path(folder)
    missing = [key for key in SPEC if key not in facts]
    if missing:
        raise ValueError(f"facts for {folder / FACTS} lack {', '.join(missing)}: expected at least {', '.join(SPEC)}.")
    text = _json_text(facts, folder)
    with whole_folder(folder) as temporary:
        tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
        save_file(tensors, temporary / WEIGHTS)
        (temporary / FACTS).write_text(text, encoding="utf-8")
        manifest = {"format": FORMAT, "files": {name: sha256(temporary / name) for name in (FACTS, WEIGHTS)}}
        (temporary / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return model_digest(folder)


def load(folder: str | Path, device: str = "cpu") -> tuple[GenerativeModel, dict[str, Any]]:
    """Build the finished model of a folder, in evaluation mode, after checking its hashes.

    Returns:
        The model on `device`, and the facts of `model.json`.
    Raises:
        ValueError: If a file was altered, or the weights do not fit the spec.
        FileNotFoundError: If there is no such folder.
    """
    from models import build

    recover(Path(folder))
    facts, tensors = read(folder)
    try:
        model = build(spec(facts))
    except (TypeError, KeyError, AttributeError, LookupError, ArithmeticError, RuntimeError, MemoryError) as error:
        raise ValueError(
            f"{Path(folder) / FACTS} describes no model that this Fivefold builds ({type(error).__name__}: {error}). "
            "Train the model again."
        ) from error
    return fill(model, tensors, folder).to(device).eval(), facts


def _json_text(facts: Mapping[str, Any], folder: Path) -> str:
    try:
        return json.dumps(dict(facts), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise ValueError(f"facts for {folder / FACTS} cannot be written as JSON: {error}.") from error
