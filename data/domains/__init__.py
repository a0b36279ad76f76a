"""What preparing, describing and exporting needs to know of each kind of data."""

from __future__ import annotations

from data.domains.base import DataKind
from data.domains.image import Images
from data.domains.table import Tables

KINDS: dict[str, DataKind] = {"image": Images(), "table": Tables()}
"""By the kind in a dataset's card; a kind of data adds itself here."""
