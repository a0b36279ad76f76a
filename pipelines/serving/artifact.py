"""A finished model as a folder: weights, facts, and a manifest that vouches for both.

| file | what |
| --- | --- |
| `model.safetensors` | the state of the model (EMA weights), CPU, contiguous |
| `model.json` | how to build it (`family`, `config`, `domain`, `classes`) and where it comes from |
| `manifest.json` | format version and the SHA-256 of the two |

Nothing is pickled. The file imports torch and safetensors only, and travels with a registered model
(inside its vendored package), so that a model is checked by the same lines wherever it is loaded. Hence
it has a `sha256` and a `canonical` of its own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from safetensors import SafetensorError
from safetensors.torch import load_file

if TYPE_CHECKING:
    from torch import Tensor, nn

Model = TypeVar("Model", bound="nn.Module")


FORMAT = 1
"""Version of the folder's layout; a folder of a newer one is refused."""

SPEC = ("family", "config", "domain", "classes")
"""The keys of `model.json` from which `models.build` builds the model; beside them perhaps `sampling`."""

WEIGHTS, FACTS, MANIFEST = "model.safetensors", "model.json", "manifest.json"


def sha256(path: str | Path) -> str:
    """SHA-256 of a file, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def canonical(value: Any) -> bytes:
    """The one JSON text of a value: sorted keys, no spaces (what digests are taken of)."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def read(folder: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Facts and weights of a finished model, checked against its manifest.

    Raises:
        ValueError: If a file is missing, altered, truncated, or of a newer format.
        FileNotFoundError: If there is no such folder.
    """
    folder = Path(folder)
    check(folder)
    facts = _facts(folder)
    missing = [key for key in SPEC if key not in facts]
    if missing:
        raise ValueError(f"{folder / FACTS} lacks {', '.join(missing)}. Train the model again.")
    for key, kind in zip((*SPEC, "sampling"), (str, dict, dict, int, dict), strict=True):
        if key in facts and (not isinstance(facts[key], kind) or isinstance(facts[key], bool)):
            raise ValueError(
                f"{folder / FACTS}: {key} must be a {kind.__name__}, got {facts[key]!r:.100}. Train the model again."
            )
    try:
        tensors = load_file(folder / WEIGHTS)
    except SafetensorError as error:
        raise ValueError(f"{folder / WEIGHTS} is no safetensors file ({error}). Train the model again.") from error
    spoilt = [name for name, tensor in tensors.items() if tensor.is_floating_point() and not (tensor < inf).all()]
    if spoilt:  # minus infinity is the logarithm of no weight at all
        raise ValueError(f"{folder / WEIGHTS} holds NaN or infinity in {', '.join(spoilt[:5])}. Train the model again.")
    return facts, tensors


def spec(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What `models.build` builds a model from: what was trained, and how it draws."""
    return {key: facts[key] for key in (*SPEC, "sampling") if key in facts}


def _facts(folder: Path) -> dict[str, Any]:
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{folder / FACTS} is not JSON ({error}). Train the model again.") from error
    if not isinstance(facts, dict):
        raise ValueError(f"{folder / FACTS} must hold an object, got a {type(facts).__name__}. Train the model again.")
    return facts


def check(folder: str | Path) -> dict[str, str]:
    """Check a finished model's files against its manifest.

    Returns:
        SHA-256 by file name.
    Raises:
        ValueError: If a file is missing, altered, truncated, or of a newer format.
        FileNotFoundError: If there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no finished model in {folder}. Train it first: `fivefold train`.")
    fix = "Restore the folder (`dvc checkout`) or train the model again."
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        version, expected = int(manifest["format"]), dict(manifest["files"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise ValueError(f"{folder / MANIFEST} cannot be read as a manifest ({error!r}). {fix}") from error
    if version > FORMAT:
        raise ValueError(
            f"{folder / MANIFEST} has format {version}, this Fivefold reads up to {FORMAT}. Use a newer Fivefold."
        )
    for name in (FACTS, WEIGHTS):
        if name not in expected:
            raise ValueError(f"{folder / MANIFEST} does not list {name}. {fix}")
        if not (folder / name).is_file():
            raise ValueError(f"{folder / name} is missing. {fix}")
        got = sha256(folder / name)
        if got != expected[name]:
            raise ValueError(
                f"{folder / name} is not the file that was saved: expected SHA-256 {expected[name]}, got {got}. {fix}"
            )
    return {name: expected[name] for name in (FACTS, WEIGHTS)}


def fill(model: Model, tensors: Mapping[str, Tensor], folder: str | Path) -> Model:
    """Put weights into a built model.

    Raises:
        ValueError: If names or shapes do not fit; `folder` is named.
    """
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"The weights in {folder} do not fit the model its {FACTS} describes: {reason} "
            "The code of this family has changed since; train the model again."
        ) from error
    return model


def model_digest(folder: str | Path) -> str:
    """Identity of a finished model: SHA-256 over its weights, its spec, how it draws, and the data it learned from.

    Two trainings that end in the same weights are the same model, however long they took.

    Raises:
        ValueError: If a file was altered.
    """
    folder = Path(folder)
    hashes = check(folder)
    facts = _facts(folder)
    identity = dict.fromkeys((*SPEC, "data_digest")) | spec(facts)
    identity |= {"data_digest": facts.get("data_digest"), "weights": hashes[WEIGHTS]}
    return hashlib.sha256(canonical(identity)).hexdigest()
