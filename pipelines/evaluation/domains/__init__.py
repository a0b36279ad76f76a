"""What evaluation needs to know of each kind of data."""

from __future__ import annotations

from typing import Any

from pipelines.evaluation.domain import FeatureEncoder
from pipelines.evaluation.domains.image import ImageFeatureEncoder
from pipelines.evaluation.domains.table import TableFeatureEncoder

ENCODERS: dict[str, type[FeatureEncoder]] = {"image": ImageFeatureEncoder, "table": TableFeatureEncoder}


def feature_encoder(domain: dict[str, Any]) -> FeatureEncoder:
    """How examples of a dataset's domain become network inputs.

    Raises:
        ValueError: If the kind of data is unknown.
    """
    options = {key: value for key, value in domain.items() if key != "kind"}
    if domain["kind"] not in ENCODERS:
        raise ValueError(f"the yardstick knows {', '.join(ENCODERS)}, not data of kind {domain['kind']!r}")
    return ENCODERS[domain["kind"]](**options)
