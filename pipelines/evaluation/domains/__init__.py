"""What evaluation needs to know of each kind of data, by its name in the dataset's domain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.evaluation.domain import EvaluationDomain
from pipelines.evaluation.domains.grid import GridEvaluation
from pipelines.evaluation.domains.table import TableEvaluation

DOMAINS: dict[str, type[EvaluationDomain]] = {"image": GridEvaluation, "table": TableEvaluation}


def evaluation_domain(spec: Mapping[str, Any]) -> EvaluationDomain:
    """What evaluation asks of a dataset's kind of data.

    Raises:
        ValueError: If the kind of data is unknown.
    """
    if spec["kind"] not in DOMAINS:
        raise ValueError(f"the yardstick knows {', '.join(DOMAINS)}, not data of kind {spec['kind']!r}")
    return DOMAINS[spec["kind"]](spec)
