"""What a downstream team loads: the file that travels with every registered model.

It travels with the code of the families in `code/fivefold_models`, which `entry.py` imports when MLflow loads a
version, once every file was checked. Besides MLflow it needs torch, safetensors and numpy only. Nothing is pickled.

    model = mlflow.pyfunc.load_model("models:/digits@generation")
    model.predict(np.zeros((0, 8, 8, 1), np.uint8), params={"task": "sample", "n": 64, "label": "3", "seed": 1})
    mlflow.pyfunc.load_model("models:/digits@anomaly").predict(images)   # a version does its job unasked

| task | rows given | params read | returned |
| --- | --- | --- | --- |
| `describe` | none (any are ignored) | | job, tasks, classes, shapes, units, thresholds |
| `sample` | none (any are ignored) | `n`, `label`, `seed`, `steps`; tables: `given` | `n` examples |
| `reconstruct` | examples | `seed` | as many examples |
| `encode` | examples | | float codes `[rows, latent]` |
| `decode` | float codes `[rows, latent]` | | as many examples |
| `interpolate` | examples in pairs: 0 with 1, 2 with 3, … | `n` | per pair, `n` examples from first to second |
| `log_density` | examples | `seed`; `draws` of a bound | a table: `log_density` in nats and `exact` or `lower_bound` |
| `log_prob`, `elbo` | examples | `seed`; `draws` importance samples of `elbo` | nats `[rows]` |
| `anomaly` | examples | `rate`, `seed` | a table: `score`, `p_value`, `flag` (p-value at most `rate`) |
| `anomaly_score` | examples | `seed` | `[rows]`, higher is more anomalous |
| `impute` | float examples, NaN where missing | `draws`, `seed` | completed; `[draws, rows, …]` if `draws` > 1 |
| `denoise` | examples, or floats with noise added | `sigma`, noise in data units | as many examples |
| `translate` | examples | `label` wanted, `strength` (0: keep all it can, 1: a fresh draw), `seed`, `steps` | as many |

Without a task a version does the job it was registered for; rows without a task are never answered by
samples. `label` is a class's number, its name, or its value in the source. `seed` 0, the default, gives the
same draws at every call; -1 gives new ones. How the family draws (`guidance`, `sampler`, `temperature`, whatever its
`SamplingConfig` names) is a parameter of its own, too: `describe` lists them with the model's own values.

Examples are the dataset's own. Images are uint8 `[rows, height, width, channels]`, 0..255 (over HTTP,
whole numbers in that range). Tables are DataFrames (pandas, polars or Arrow; pandas comes back) with the
dataset's columns, in any order: numbers, categories by name, dates and currencies as the source writes them, and
any cell missing (`None`, NaN), whatever the task; identifiers and free text need not be given. They come back in
the original types and formats, with the label's column, the index, and further columns untouched, several draws
below one another with their number in a first column `draw`. Whole numbers and booleans with gaps have pandas'
nullable types. What is drawn has all columns of the source, with fresh identifiers. A category that training did
not have is an error, or missing with `on_unknown: missing`.

What the dataset's card states of every row (`constraints`) holds in what is drawn, filled in and reconstructed. A row
that breaks a constraint has the density 0 (`-inf`) and the anomaly score `inf`, and the column `breaks` says which
(over HTTP infinite numbers are null); other tasks refuse it.

Every refusal is one sentence, as an `MlflowException` that is also a `ValueError`: over HTTP it is the message,
with status 400. Work is bounded: see `LIMITS` in `params.py`, which environment variables set.

The device is `MLFLOW_DEFAULT_PREDICTION_DEVICE`, else a GPU if there is one.
"""

from __future__ import annotations

import copy
import dataclasses
import importlib
import json
import os
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from . import artifact, deadline
from .calibration import HeldOutScores
from .domains import conversion
from .domains.base import MOST_TRIED, Rows, as_array, drawn_given, redrawn, refuse, scored
from .interpolation import spherical
from .params import JOBS, LIMITS, check_rows, check_work, checked, limit, parameters
from .scoring import Refused, answer_requests_ourselves

CHUNK = 256
"""Rows the model is given at once, several draws of one counted as often: what it needs for them stays flat.

The answer itself is held whole; `FIVEFOLD_MAX_WORK` bounds it.
"""

ITERATIVE = ("sample", "translate", "impute", "log_density", "log_prob", "anomaly", "anomaly_score")
"""Tasks for which a model may run its own steps."""


class ServedModel(PythonModel):
    """A registered generative model behind MLflow's `predict`."""

    device: str
    model: Any
    facts: dict[str, Any]
    version: dict[str, Any]
    tasks: tuple[str, ...]
    offered: tuple[str, ...]
    package: Any
    rows: Any
    held_out: Any

    def load_context(self, context: PythonModelContext) -> None:
        """Build the model from the folder that MLflow fetched.

        Raises:
            ValueError: If a file was altered since it was saved.
        """
        package = sys.modules[str(__package__).rpartition(".")[0]]
        folder = Path(context.artifacts["model"])
        facts, tensors = artifact.read(folder)
        about = Path(context.artifacts["version"])
        self.version = json.loads(about.read_text(encoding="utf-8"))
        self.device = os.environ.get("MLFLOW_DEFAULT_PREDICTION_DEVICE") or _best_device()
        self.model = artifact.fill(package.build(artifact.spec(facts)), tensors, folder).to(self.device).eval()
        self.model.requires_grad_(False)
        self.facts = facts
        self.package = package
        self.tasks = package.tasks(self.model)
        extra = {
            "log_density": "log_prob" in self.tasks or "elbo" in self.tasks,
            "anomaly": "anomaly_score" in self.tasks,
            "describe": True,
        }
        self.offered = (*self.tasks, *(task for task, offered in extra.items() if offered))
        self.rows = conversion(facts, self.version, _formats())
        self.held_out = HeldOutScores(self.version.get("held_out_scores") or ())
        answer_requests_ourselves()

    @property
    def default_task(self) -> str:
        """The task that is done unasked."""
        return JOBS.get(self.version.get("job"), "sample")

    def predict(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, context: PythonModelContext, model_input: np.ndarray, params: dict[str, Any] | None = None
    ) -> np.ndarray:
        """Do a task: see the table at the top of this file.

        Raises:
            ValueError: If the family cannot do the task, or an input or parameter is not what it takes.
        """
        try:
            with deadline.within(limit("FIVEFOLD_MAX_SECONDS")):
                return self._do(model_input, params or {})
        except Refused:
            raise
        except (ValueError, TimeoutError) as error:
            raise Refused(str(error)) from None

    def _do(self, model_input: Any, params: Mapping[str, Any]) -> Any:
        names = [str(name) for name in self.facts.get("class_names") or ()]
        options = checked(params, names, int(self.facts["classes"]), self._sampling)
        if changes := options.pop("sampling"):
            other = copy.copy(self)  # others may be answered at the same time
            other.model = self.model.with_sampling(**changes)
            return other._answer(model_input, options)
        return self._answer(model_input, options)

    @property
    def _sampling(self) -> dict[str, Any]:
        """How the model draws, by setting."""
        return dataclasses.asdict(self.model.sampling)

    def _answer(self, model_input: Any, options: dict[str, Any]) -> Any:
        count = _length(model_input)
        task = options["task"] = self._task(options["task"], count)
        if task == "describe":
            return self.description()
        self._check_work(task, options, 0 if task == "sample" else count)
        if options["seed"] == -1:
            options["seed"] = secrets.randbits(62)
        generator = self.package.Streams.seeded("predict", options["seed"], device=self.device)
        with torch.no_grad():
            if task == "sample":
                return self._sample(options, generator)
            if task == "decode":
                return self._decode(model_input)
            rows = self._read(model_input, task, options)
            if task == "interpolate":
                return self._interpolate(rows.x, options["n"])
            if task == "impute":
                return self._impute(rows, options["draws"], options["seed"], generator)
            if task == "log_density":
                return rows.restore(self._log_density(rows, options, generator))
            if task == "anomaly":
                return rows.restore(self._anomaly(rows, options, generator))
            return self._by_row(task, rows, options, generator)

    def _read(self, model_input: Any, task: str, options: Mapping[str, Any]) -> Rows:
        """The rows as tensors; further options go to the kinds of data that have a use for them."""
        if options["on_unknown"] == "missing":
            return self.rows.read(model_input, task, on_unknown="missing")
        return self.rows.read(model_input, task)

    def _task(self, asked: str | None, count: int) -> str:
        """The task asked for, or the version's job.

        Raises:
            ValueError: If the model cannot do it, or rows come without a task to a version whose job takes none.
        """
        task = self.default_task if asked is None else asked
        listed = ", ".join(self.offered)
        if task not in self.offered:
            raise ValueError(f"this model ({self.facts['family']}) cannot do task {task!r}; it can do: {listed}.")
        if asked is None and task == "sample" and count:
            job = self.version.get("job")
            reason = f"the job of this version is {job}, which takes no rows" if job else "this version has no job"
            raise ValueError(
                f"{count} rows were given without a task, and {reason}: set params task to one of {listed}."
            )
        return task

    def _check_work(self, task: str, options: Mapping[str, Any], count: int) -> None:
        check_rows(count)
        numbers = {"sample": options["n"], "interpolate": count // 2 * options["n"]}
        check_work(
            task,
            count=numbers.get(task, count),
            draws=options["draws"] if task in ("impute", "elbo", "log_density") else self._tries(task, options),
            steps=max(1, options["steps"] or self._own_steps(task)) if task in ITERATIVE else 1,
            values=self.rows.empty(1).numel(),
        )

    @staticmethod
    def _tries(task: str, options: Mapping[str, Any]) -> int:
        """How often a row may be drawn until it lies in the ranges that are given."""
        ranges = task == "sample" and any(isinstance(value, list) for value in options["given"].values())
        return MOST_TRIED if ranges else 1

    def _own_steps(self, task: str) -> int:
        """Steps of the model's own sampler, or of what else it does several times for an example."""
        own = self.facts["config"] | self._sampling
        named = ("density_steps", "steps") if task in ("log_density", "log_prob") else ("steps",)
        return next((own[name] for name in named if isinstance(own.get(name), int)), 1)

    # Tasks

    def _sample(self, options: Mapping[str, Any], generator: Any) -> Any:
        given = options["given"]
        if given:
            return self._sample_given(options, generator)
        parts, labels = [], []
        for start, stop in _chunks(options["n"]):
            label = self._labels(stop - start, options)
            if self.rows.takes_labels and label is not None:
                label = self.model.draw_labels(stop - start, label, generator)
                labels.append(label.cpu())
            parts.append(self.model.sample(stop - start, label, generator, steps=options["steps"]).cpu())
        codes = torch.cat(labels) if labels else None

        def again(rows: torch.Tensor) -> torch.Tensor:
            label = self._labels(len(rows), options) if codes is None else codes[rows].to(self.device)
            return self._drawn(len(rows), lambda n, at: self.model.sample(
                n, None if label is None else label[at : at + n], generator, steps=options["steps"]
            ))  # fmt: skip

        x = redrawn(torch.cat(parts), self.rows, again, seed=options["seed"]) if parts else self.rows.empty()
        drawn = self.rows.write(x, seed=options["seed"])
        if self.rows.takes_labels:
            drawn = self.rows.labelled(drawn, torch.zeros(0, dtype=torch.long) if codes is None else codes)
        return drawn

    @staticmethod
    def _drawn(n: int, draw: Callable[[int, int], torch.Tensor]) -> torch.Tensor:
        """Examples drawn part by part: `draw` takes how many and from which on."""
        return torch.cat([draw(stop - start, start).cpu() for start, stop in _chunks(n)])

    def _sample_given(self, options: Mapping[str, Any], generator: Any) -> Any:
        """Rows of which some cells are given, the others drawn from the model's conditional distribution."""
        if "impute" not in self.tasks or not self.model.exact_conditionals:
            raise ValueError(
                f"this model ({self.facts['family']}) cannot draw exactly given the values of columns; leave `given` "
                "out, or fill in the other columns approximately with task 'impute'."
            )
        given = self.rows.read_given(options["given"])
        n, seed, label = options["n"], options["seed"], options["label"]
        if given.label is not None:
            if label not in (-1, given.label):
                raise ValueError("`label` and `given` name different classes. Leave one out.")
            label = given.label

        def draw(x: torch.Tensor, labels: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor | None]:
            parts = [
                self.model.sample_given(
                    x[start:stop].to(self.device),
                    None if labels is None else labels[start:stop].to(self.device),
                    generator,
                )
                for start, stop in _chunks(len(x))
            ]
            codes = None if labels is None else torch.cat([codes.cpu() for _, codes in parts])
            return torch.cat([drawn.cpu() for drawn, _ in parts]), codes

        if n:
            labels = torch.full((n,), label) if self.facts["classes"] else None
            x, codes = drawn_given(given, self.rows, draw, labels, n, seed=seed)
        else:
            x, codes = self.rows.empty(), torch.zeros(0, dtype=torch.long)
        drawn = self.rows.write(x, seed=seed, given=given.repeated(n))
        return self.rows.labelled(drawn, codes) if self.rows.takes_labels and codes is not None else drawn

    def _labels(self, n: int, options: Mapping[str, Any]) -> torch.Tensor | None:
        """The label asked for, once per row; `None` if the model knows none."""
        return torch.full((n,), options["label"], device=self.device) if self.facts["classes"] else None

    def _by_row(self, task: str, rows: Rows, options: Mapping[str, Any], generator: Any) -> Any:
        model, x = self.model, rows.x
        calls: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
            "reconstruct": lambda part: model.reconstruct(part, generator),
            "encode": lambda part: model.encode(part),
            "log_prob": lambda part: model.log_prob(part, generator, label=self._labels(len(part), options)),
            "elbo": lambda part: model.elbo(
                part, generator, samples=options["draws"], label=self._labels(len(part), options)
            ),
            "anomaly_score": lambda part: model.anomaly_score(part, generator),
            "denoise": lambda part: model.denoise(part, options["sigma"]),
            "translate": lambda part: model.translate(
                part, self._labels(len(part), options), options["strength"], generator, steps=options["steps"]
            ),
        }
        examples = task in ("reconstruct", "denoise", "translate")
        if not len(x):
            if examples:
                return rows.restore(self.rows.write(self.rows.empty()))
            return np.zeros((0, self._latent()) if task == "encode" else (0,), np.float32)
        result = torch.cat([calls[task](x[start:stop].to(self.device)).cpu() for start, stop in _chunks(len(x))])
        if not examples:
            return scored(result.numpy(), task, rows.broken)
        written = rows.restore(self.rows.write(result))
        if task == "translate" and self.rows.takes_labels and options["label"] >= 0:
            written = self.rows.labelled(written, torch.full((len(x),), options["label"]))
        return written

    def _numbers(self, task: str, rows: Rows, options: Mapping[str, Any], generator: Any) -> np.ndarray:
        return np.asarray(self._by_row(task, rows, options, generator), np.float64)

    @property
    def _exact(self) -> bool:
        return "log_prob" in self.tasks

    def _log_density(self, rows: Rows, options: Mapping[str, Any], generator: Any) -> Any:
        import pandas as pd

        nats = self._numbers("log_prob" if self._exact else "elbo", rows, options, generator)
        kind = "exact" if self._exact else "lower_bound"
        return pd.DataFrame({"log_density": nats, kind: np.full(len(rows.x), True), **_breaks(rows)})

    def _anomaly(self, rows: Rows, options: Mapping[str, Any], generator: Any) -> Any:
        import pandas as pd

        if not len(self.held_out):
            raise ValueError(
                "this version holds no scores of held-out rows, so no p-values: ask for task 'anomaly_score', or "
                "evaluate and register the model again."
            )
        self.held_out.check_rate(options["rate"])
        scores = self._numbers("anomaly_score", rows, options, generator)
        p_values = self.held_out.p_values(scores)
        flags = p_values <= options["rate"]
        if rows.broken:
            flags |= np.isinf(scores)
        return pd.DataFrame({"score": scores, "p_value": p_values, "flag": flags, **_breaks(rows)})

    def _latent(self) -> int:
        return self.model.encode(self.rows.empty(1).to(self.device)).shape[1]

    def _decode(self, model_input: Any) -> Any:
        latent = self._latent()
        z = as_array(model_input, f"float codes [rows, {latent}]")
        if not z.size and (z.ndim < 2 or not len(z)):
            return self.rows.write(self.rows.empty())
        if z.ndim != 2 or z.shape[1] != latent or z.dtype.kind not in "fiu":
            raise ValueError(f"task 'decode' takes float codes [rows, {latent}], got {z.dtype} {list(z.shape)}.")
        refuse(z, ~np.isfinite(z), "codes are finite")
        codes = torch.from_numpy(z.astype(np.float32))
        parts = [self.model.decode(codes[start:stop].to(self.device)).cpu() for start, stop in _chunks(len(codes))]
        return self.rows.write(torch.cat(parts))

    def _interpolate(self, x: torch.Tensor, n: int) -> Any:
        if len(x) % 2:
            raise ValueError(f"task 'interpolate' takes rows in pairs (0 with 1, 2 with 3, …), got {len(x)} rows.")
        if not len(x) or not n:
            return self.rows.write(self.rows.empty())
        codes = torch.cat([self.model.encode(x[start:stop].to(self.device)) for start, stop in _chunks(len(x))])
        path = spherical(codes[0::2], codes[1::2], n).flatten(0, 1)
        parts = [self.model.decode(path[start:stop]).cpu() for start, stop in _chunks(len(path))]
        return self.rows.write(torch.cat(parts))

    def _impute(self, rows: Rows, draws: int, seed: int, generator: Any) -> Any:
        if not len(rows.x):
            blank = self.rows.empty()
            return rows.restore(self.rows.write(blank if draws == 1 else blank.expand(draws, *blank.shape)))

        def completed(chosen: torch.Tensor) -> torch.Tensor:
            parts = []
            for start, stop in _chunks(len(chosen), max(1, CHUNK // draws)):
                at = chosen[start:stop]
                x, observed = rows.x[at].to(self.device), rows.observed[at].to(self.device)
                drawn = [
                    self.model.impute(x, observed, generator, draws=last - first).cpu()
                    for first, last in _chunks(draws)
                ]
                parts.append(torch.cat(drawn))
            return torch.cat(parts, dim=1)

        x = redrawn(completed(torch.arange(len(rows.x))), self.rows, completed, seed=seed, given=rows.given)
        return rows.restore(self.rows.write(x[0] if draws == 1 else x, seed=seed, given=rows.given))

    def description(self) -> dict[str, Any]:
        """What the task `describe` says: JSON types only."""
        names = self.facts.get("class_names") or [str(number) for number in range(int(self.facts["classes"]))]
        rates = [rate for rate in (0.001, 0.01, 0.05, 0.1) if rate * (len(self.held_out) + 1) >= 1]
        thresholds = {str(rate): self.held_out.threshold(rate) for rate in rates}
        kind = {"log_density": "exact" if self._exact else "a lower bound"} if "log_density" in self.offered else {}
        return {
            "dataset": self.facts.get("dataset", ""),
            "family": self.facts["family"],
            "job": self.version.get("job", ""),
            "default_task": self.default_task,
            "tasks": list(self.offered),
            "classes": [{"label": number, "name": str(name)} for number, name in enumerate(names)],
            "examples": self.rows.expected,
            "shape": list(self.rows.empty(1).shape[1:]),
            "units": {
                "log_density": "nats per example",
                "sigma": "standard deviation of the noise, in the data's units",
                "score": "none: only the order means something; p_value compares versions",
            },
            **kind,
            "thresholds": {"held_out_rows": len(self.held_out), "score_at_rate": thresholds},
            "params": {name: default for name, (_, default) in parameters(self._sampling).items()}
            | {"task": self.default_task},
            "sampling": self._sampling,
            "limits": {name: limit(name) for name in LIMITS},
            **self.rows.described(),
        }


def _formats() -> ModuleType | None:
    """The reader and writer of a table's cells, where it came along with the model."""
    try:
        return importlib.import_module(f"{__package__}.formats")
    except ModuleNotFoundError:
        return None


def _breaks(rows: Rows) -> dict[str, list[str | None]]:
    """The column that says which constraint a row breaks, where the data have any."""
    return {"breaks": [text or None for text in rows.broken]} if rows.broken else {}


def _best_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _chunks(n: int, size: int = CHUNK) -> Iterator[tuple[int, int]]:
    """Parts of a work; between two of them it may end.

    Raises:
        TimeoutError: If nobody waits for it any longer, or it takes too long.
    """
    for start in range(0, n, size):
        deadline.check()
        yield start, min(start + size, n)


def _length(model_input: Any) -> int:
    """Rows given; 0 for none at all."""
    if model_input is None:
        return 0
    if isinstance(model_input, Mapping):
        return max((len(cells) for cells in model_input.values() if hasattr(cells, "__len__")), default=0)
    return len(model_input) if hasattr(model_input, "__len__") and getattr(model_input, "shape", None) != () else 0
