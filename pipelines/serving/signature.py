"""What the registry says of a version before anybody has loaded it: inputs, outputs, an example that runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from .domains import conversion
from .domains.base import Shape
from .params import JOBS


@dataclass(frozen=True, kw_only=True, slots=True)
class Described:
    """A version's task by default, and what goes in and comes out of it.

    Arguments:
        task: Done unasked.
        inputs: Rows that it takes (by `sample`, which takes none: as other tasks do).
        outputs: What it returns.
        example: One row that may be given.
        metadata: What else is said in `MLmodel`.
    """

    task: str
    inputs: Shape
    outputs: Shape
    example: Any
    metadata: dict[str, Any]


def describe(facts: Mapping[str, Any], about: Mapping[str, Any], formats: ModuleType | None) -> Described:
    """A finished model's signature as a version with a job (or none).

    Arguments:
        facts: Of `model.json`.
        about: What the version knows of itself: `job`, `label`, `exact` (density) and `latent` (size of codes).
        formats: The module that reads and writes a table's cells.
    """
    task = JOBS.get(str(about.get("job")), "sample")
    rows = conversion(facts, about, formats)
    inputs = rows.schema
    breaks = [("breaks", "string")] if facts.get("constraints") else []
    outputs: dict[str, Shape] = {
        "log_density": [
            ("log_density", "double"),
            ("exact" if about.get("exact") else "lower_bound", "boolean"),
            *breaks,
        ],
        "anomaly": [("score", "double"), ("p_value", "double"), ("flag", "boolean"), *breaks],
        "encode": ("float32", (-1, int(about.get("latent") or -1))),
    }
    metadata = {"dataset": facts.get("dataset", ""), "family": facts["family"], "job": str(about.get("job") or "")}
    if "exact" in about:
        metadata["log_density"] = "exact" if about["exact"] else "a lower bound"
    returned = outputs.get(task, inputs)
    return Described(task=task, inputs=inputs, outputs=returned, example=rows.example(), metadata=metadata)
