"""What a downstream team loads: the file that travels with every registered model.

MLflow runs this file when it loads a model version ("models from code"). Besides MLflow it needs
torch, safetensors and numpy only: the code of the families comes along as `code/fivefold_models`,
the weights as safetensors whose SHA-256 is checked before use. Nothing is pickled.

    model = mlflow.pyfunc.load_model("models:/digits@generation")
    model.predict(np.zeros((0, 8, 8, 1), np.uint8), params={"task": "sample", "n": 64, "label": 3, "seed": 1})

| task | rows given | params read | returned |
| --- | --- | --- | --- |
| `sample` | none (any are ignored) | `n`, `label`, `seed`, `steps` | `n` examples |
| `reconstruct` | examples | `seed` | as many examples |
| `encode` | examples | | float codes `[rows, latent]` |
| `decode` | float codes `[rows, latent]` | | as many examples |
| `interpolate` | examples in pairs: 0 with 1, 2 with 3, … | `n` | per pair, `n` examples from first to second |
| `log_prob`, `elbo` | examples | `seed`; `draws` importance samples of `elbo` | nats `[rows]` |
| `anomaly_score` | examples | `seed` | `[rows]`, higher is more anomalous |
| `impute` | float examples, NaN where missing | `draws`, `seed` | completed; `[draws, rows, …]` if `draws` > 1 |
| `denoise` | examples, or floats with noise added | `sigma`, noise in data units | as many examples |
| `translate` | examples | `label` wanted, `strength` (0: keep all it can, 1: a fresh draw), `seed`, `steps` | as many |

Examples are the dataset's own. Images are uint8 `[rows, height, width, channels]`, 0..255 (over HTTP,
whole numbers in that range). Tables are DataFrames with the dataset's columns, in any order: numbers,
categories by name, dates and currencies as the source writes them, and any cell missing (`None`, NaN), whatever
the task; identifiers and free text need not be given. They come back in the original types and formats with the
places of all columns, several draws below one another with their number in a first column `draw`.

The device is `MLFLOW_DEFAULT_PREDICTION_DEVICE`, else a GPU if there is one.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

if TYPE_CHECKING:
    from .domains.base import Conversion, Rows
    from .interpolation import Interpolation

PACKAGE = "fivefold_models"
"""Name of the families' package inside a registered model."""

PARAMS: dict[str, tuple[str, Any]] = {
    "task": ("string", "sample"),
    "n": ("long", 16),
    "seed": ("long", 0),
    "label": ("long", -1),
    "steps": ("long", 0),
    "draws": ("long", 1),
    "sigma": ("double", 25.5),
    "strength": ("double", 0.5),
}
"""Type and default of each parameter of `predict`: the registered signature is made of it."""

CHUNK = 256
"""Rows the model is given at once: memory stays flat however many are asked for."""

MOST_VALUES = 2**31
"""Values one call may return."""


class ServedModel(PythonModel):
    """A registered generative model behind MLflow's `predict`."""

    device: str
    model: Any
    facts: dict[str, Any]
    tasks: tuple[str, ...]
    streams: Any
    rows: Conversion
    base: ModuleType
    spherical: Interpolation

    def load_context(self, context: PythonModelContext) -> None:
        """Build the model from the folder that MLflow fetched.

        Raises:
            ValueError: If a file was altered since it was saved.
        """
        package = vendored(Path(__file__).resolve().parent / "code" / PACKAGE)
        folder = Path(context.artifacts["model"])
        artifact, domains = package.serving.artifact, package.serving.domains
        facts, tensors = artifact.read(folder)
        spec = {key: facts[key] for key in artifact.SPEC}
        self.device = os.environ.get("MLFLOW_DEFAULT_PREDICTION_DEVICE") or _best_device()
        self.model = artifact.fill(package.build(spec), tensors, folder).to(self.device).eval()
        self.model.requires_grad_(False)
        self.facts = facts
        self.tasks = package.tasks(self.model)
        self.streams = package.Streams
        self.rows = domains.conversion(facts, _formats(package))
        self.base = domains.base
        self.spherical = package.serving.interpolation.spherical

    def predict(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, context: PythonModelContext, model_input: np.ndarray, params: dict[str, Any] | None = None
    ) -> np.ndarray:
        """Do a task: see the table at the top of this file.

        Raises:
            ValueError: If the family cannot do the task, or an input or parameter is not what it takes.
        """
        options = self._options(params or {})
        task = options["task"]
        generator = self.streams.seeded("predict", options["seed"], device=self.device)
        with torch.no_grad():
            if task == "sample":
                return self._sample(options, generator)
            if task == "decode":
                return self._decode(model_input)
            rows = self.rows.read(model_input, task)
            if task == "interpolate":
                return self._interpolate(rows.x, options["n"])
            if task == "impute":
                return self._impute(rows, options["draws"], generator)
            return self._by_row(task, rows.x, options, generator)

    # Tasks

    def _sample(self, options: Mapping[str, Any], generator: Any) -> Any:
        parts = []
        for start, stop in _chunks(options["n"]):
            labels = self._labels(stop - start, options)
            parts.append(self.model.sample(stop - start, labels, generator, steps=options["steps"]).cpu())
        drawn = torch.cat(parts) if parts else self.rows.empty()
        known = self.facts["classes"] and options["label"] >= 0
        label = torch.full((len(drawn),), options["label"]) if known else None
        return self.rows.write(drawn, label, options["seed"])

    def _labels(self, n: int, options: Mapping[str, Any]) -> torch.Tensor | None:
        """The label asked for, once per row; `None` if the model knows none."""
        return torch.full((n,), options["label"], device=self.device) if self.facts["classes"] else None

    def _by_row(self, task: str, x: torch.Tensor, options: Mapping[str, Any], generator: Any) -> Any:
        model = self.model
        calls: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
            "reconstruct": lambda part: model.reconstruct(part, generator),
            "encode": lambda part: model.encode(part),
            "log_prob": lambda part: model.log_prob(part, generator),
            "elbo": lambda part: model.elbo(part, generator, samples=options["draws"]),
            "anomaly_score": lambda part: model.anomaly_score(part, generator),
            "denoise": lambda part: model.denoise(part, options["sigma"]),
            "translate": lambda part: model.translate(
                part, self._labels(len(part), options), options["strength"], generator, steps=options["steps"]
            ),
        }
        examples = task in ("reconstruct", "denoise", "translate")
        if not len(x):
            if examples:
                return self.rows.write(self.rows.empty())
            return np.zeros((0, self._latent()) if task == "encode" else (0,), np.float32)
        result = torch.cat([calls[task](x[start:stop].to(self.device)).cpu() for start, stop in _chunks(len(x))])
        return self.rows.write(result) if examples else result.numpy()

    def _latent(self) -> int:
        return self.model.encode(self.rows.empty(1).to(self.device)).shape[1]

    def _decode(self, model_input: Any) -> Any:
        latent = self._latent()
        z = self.base.as_array(model_input, f"float codes [rows, {latent}]")
        if not len(z):
            return self.rows.write(self.rows.empty())
        if z.ndim != 2 or z.shape[1] != latent or z.dtype.kind not in "fiu":
            raise ValueError(f"task 'decode' takes float codes [rows, {latent}], got {z.dtype} {list(z.shape)}.")
        self.base.refuse(z, ~np.isfinite(z), "codes are finite")
        codes = torch.from_numpy(z.astype(np.float32))
        parts = [self.model.decode(codes[start:stop].to(self.device)).cpu() for start, stop in _chunks(len(codes))]
        return self.rows.write(torch.cat(parts))

    def _interpolate(self, x: torch.Tensor, n: int) -> Any:
        if len(x) % 2:
            raise ValueError(f"task 'interpolate' takes rows in pairs (0 with 1, 2 with 3, …), got {len(x)} rows.")
        if not len(x) or not n:
            return self.rows.write(self.rows.empty())
        codes = torch.cat([self.model.encode(x[start:stop].to(self.device)) for start, stop in _chunks(len(x))])
        path = self.spherical(codes[0::2], codes[1::2], n).flatten(0, 1)
        parts = [self.model.decode(path[start:stop]).cpu() for start, stop in _chunks(len(path))]
        return self.rows.write(torch.cat(parts))

    def _impute(self, rows: Rows, draws: int, generator: Any) -> Any:
        if not len(rows.x):
            blank = self.rows.empty()
            return self.rows.write(blank if draws == 1 else blank.expand(draws, *blank.shape))
        parts = []
        for start, stop in _chunks(len(rows.x)):
            x, observed = rows.x[start:stop].to(self.device), rows.observed[start:stop].to(self.device)
            parts.append(self.model.impute(x, observed, generator, draws=draws).cpu())
        completed = torch.cat(parts, dim=1)
        return self.rows.write(completed[0] if draws == 1 else completed)

    # Parameters

    def _options(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """All parameters, of the right types and in range."""
        unknown = sorted(set(params) - set(PARAMS))
        if unknown:
            raise ValueError(f"unknown params {', '.join(unknown)}; known: {', '.join(PARAMS)}.")
        options = {name: params.get(name, default) for name, (_, default) in PARAMS.items()}
        if options["task"] not in self.tasks:
            raise ValueError(
                f"this model ({self.facts['family']}) cannot do task {options['task']!r}; "
                f"it can do: {', '.join(self.tasks)}."
            )
        for name, least in (("n", 0), ("seed", None), ("label", -1), ("steps", 0), ("draws", 1)):
            options[name] = _whole(name, options[name], least)
        values = max(options["n"], options["draws"]) * self.rows.empty(1).numel()
        if values > MOST_VALUES:
            raise ValueError(f"{values} values are too many for one call: at most {MOST_VALUES}. Ask in several.")
        if not (np.isfinite(options["sigma"]) and options["sigma"] > 0):
            raise ValueError(f"sigma must be a positive number (noise in data units), got {options['sigma']!r}.")
        if not 0 <= options["strength"] <= 1:
            raise ValueError(f"strength must lie between 0 and 1, got {options['strength']!r}.")
        self._check_label(options["label"])
        return options

    def _check_label(self, label: int) -> None:
        classes = int(self.facts["classes"])
        if label >= 0 and not classes:
            raise ValueError(f"this model was trained without labels: label must be -1 (any), got {label}.")
        if label >= classes and label >= 0:
            names = self.facts.get("class_names") or []
            known = f" ({', '.join(map(str, names))})" if names else ""
            raise ValueError(f"label must be -1 (any) or 0 to {classes - 1}{known}, got {label}.")


def vendored(folder: Path) -> ModuleType:
    """Import the families' package from a registered model's own folder.

    Two versions with different code can live in one process, and a caller's own packages are left
    alone: the package is imported under a name that ends in a digest of its code.
    """
    sources = sorted(path for path in folder.rglob("*.py"))
    if not sources:
        raise ValueError(f"{folder} holds no code. The registered model is incomplete: register it again.")
    digest = hashlib.sha256(b"".join(path.name.encode() + path.read_bytes() for path in sources)).hexdigest()[:16]
    name = f"{PACKAGE}_{digest}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            name, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
            for part in ("serving.artifact", "serving.domains", "serving.interpolation"):
                importlib.import_module(f"{name}.{part}")
        except BaseException:
            sys.modules.pop(name, None)
            raise
    return sys.modules[name]


def _formats(package: ModuleType) -> ModuleType | None:
    """The reader and writer of a table's cells, where it came along with the model."""
    try:
        return importlib.import_module(f"{package.__name__}.serving.formats")
    except ModuleNotFoundError:
        return None


def _best_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _chunks(n: int) -> Iterator[tuple[int, int]]:
    return ((start, min(start + CHUNK, n)) for start in range(0, n, CHUNK))


def _whole(name: str, value: Any, least: int | None) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or (least is not None and value < least):
        bound = "" if least is None else f" of at least {least}"
        raise ValueError(f"{name} must be a whole number{bound}, got {value!r}.")
    return int(value)


set_model(ServedModel())
