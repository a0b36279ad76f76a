"""What evaluation needs to know of each kind of data."""

from __future__ import annotations

from typing import Any

from pipelines.evaluation.domain import Inputs
from pipelines.evaluation.domains.image import ImageInputs
from pipelines.evaluation.domains.table import TableInputs

KINDS: dict[str, type[Inputs]] = {"image": ImageInputs, "table": TableInputs}


def inputs(domain: dict[str, Any]) -> Inputs:
    """How examples of a dataset's domain become network inputs.

    Raises:
        ValueError: If the kind of data is unknown.
    """
    options = {key: value for key, value in domain.items() if key != "kind"}
    if domain["kind"] not in KINDS:
        raise ValueError(f"the yardstick knows {', '.join(KINDS)}, not data of kind {domain['kind']!r}")
    return KINDS[domain["kind"]](**options)
