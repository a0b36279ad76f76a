"""The files of a registered model: written as an MLflow model, and taken apart again."""

from __future__ import annotations

import contextlib
import json
import logging
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.tracking import vouching

if TYPE_CHECKING:
    from mlflow.types import Schema

VERSION_FILE = "version.json"
"""What a version knows of itself, beside the model."""


def save_served(
    folder: str | Path,
    *,
    model: str | Path,
    package: str | Path,
    run_id: str,
    model_id: str,
    about: Mapping[str, Any] | None = None,
) -> None:
    """Write an MLflow model folder that needs only mlflow, torch, safetensors and numpy, and holds no pickle.

    Arguments:
        folder: Where.
        model: The finished model's folder.
        package: The families' code, a folder named `fivefold_models`.
        run_id: The run that trained it.
        model_id: Id of the logged model.
        about: What the version knows of itself: `job`, `label` (name of the label's column), `held_out_scores`,
            and whatever else is worth knowing.
    """
    from importlib.metadata import version

    import mlflow
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ParamSchema, ParamSpec

    from data import formats
    from pipelines.serving import artifact, signature
    from pipelines.serving.params import parameters

    facts, _ = artifact.read(model)
    about = dict(about or {})
    described = signature.describe(facts, about, formats)
    known = parameters(facts.get("sampling", {})) | {"task": ("string", described.task)}
    params = ParamSchema([ParamSpec(name, kind, default) for name, (kind, default) in known.items()])
    needs = [f"{name}=={version(name).split('+')[0]}" for name in ("mlflow", "torch", "safetensors", "numpy")]
    with _without_advice(), tempfile.TemporaryDirectory() as temporary:
        (Path(temporary) / VERSION_FILE).write_text(
            json.dumps(about, indent=1, sort_keys=True) + "\n", encoding="utf-8"
        )
        mlflow.pyfunc.save_model(
            str(folder),
            python_model=str(vouching.staged(Path(package), Path(temporary)) / vouching.SERVED),
            artifacts={"model": str(Path(model).absolute()), "version": str(Path(temporary) / VERSION_FILE)},
            code_paths=[str(package)],
            signature=ModelSignature(_schema(described.inputs), _schema(described.outputs), params),
            input_example=(described.example, {"task": described.task}),
            pip_requirements=needs,
            mlflow_model=Model(
                artifact_path=facts["family"], run_id=run_id, model_id=model_id, model_uuid=model_id,
                metadata=described.metadata,
            ),
        )  # fmt: skip
    _forget_origin(Path(folder) / "MLmodel")
    _refuse_pickles(Path(folder))
    vouching.seal(Path(folder))


def _schema(columns: list[tuple[str, str]] | tuple[str, tuple[int, ...]]) -> Schema:
    """MLflow's schema of an array (`dtype`, shape with -1 for the rows) or a table (name and kind of each column)."""
    import numpy as np
    from mlflow.types import ColSpec, Schema, TensorSpec

    if isinstance(columns, list):
        return Schema([ColSpec(kind, name, required=False) for name, kind in columns])
    dtype, shape = columns
    return Schema([TensorSpec(np.dtype(dtype), shape)])


def _forget_origin(described: Path) -> None:
    """Take the trainer's own paths out of `MLmodel`: everything it names lies in its folder."""
    import yaml

    content = yaml.safe_load(described.read_text(encoding="utf-8"))
    flavor = content["flavors"]["python_function"]
    for entry in flavor.get("artifacts", {}).values():
        entry["uri"] = entry["path"]
    flavor["model_code_path"] = Path(flavor["model_code_path"]).name
    described.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


@contextlib.contextmanager
def _without_advice() -> Iterator[None]:
    """Silence MLflow's hints on signatures and input examples, which do not apply here."""
    import warnings

    level = logging.getLogger("mlflow").level
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.getLogger("mlflow").setLevel(level)


def _refuse_pickles(folder: Path) -> None:
    kinds = (".pkl", ".pickle", ".pt", ".pth", ".bin", ".joblib")
    found = [path for path in folder.rglob("*") if path.suffix in kinds]
    assert not found, f"pickled files in a model to be registered: {found}"


@dataclass(frozen=True, kw_only=True, slots=True)
class ServedFolder:
    """The parts of a registered model's files, as `save_served` takes them.

    Arguments:
        model: The finished model's folder.
        package: The families' code.
        about: What the version knows of itself.
    """

    model: Path
    package: Path
    about: Mapping[str, Any]


def open_served(folder: str | Path) -> ServedFolder:
    """The parts of a registered model's files.

    Arguments:
        folder: What `download` returned.
    """
    import yaml

    folder = Path(folder)
    flavor = yaml.safe_load((folder / "MLmodel").read_text(encoding="utf-8"))["flavors"]["python_function"]
    artifacts = {name: folder / entry["path"] for name, entry in flavor["artifacts"].items()}
    (package,) = (path for path in (folder / flavor["code"]).iterdir() if path.is_dir() and path.name[0] not in "._")
    about = json.loads(artifacts["version"].read_text(encoding="utf-8")) if "version" in artifacts else {}
    return ServedFolder(model=artifacts["model"], package=package, about=about)
