"""`params.yaml`, read and validated once: all errors at once, each with its key and the fix."""

from __future__ import annotations

from pipelines.config.budgets import budget_key
from pipelines.config.layout import read_yaml
from pipelines.config.resolution import PATH, known_facts, load, measured, resolve, suiting
from pipelines.config.sections import (
    SECTIONS,
    Cluster,
    Family,
    Params,
    Range,
    Resolved,
    Train,
    Tune,
    setting_of,
    with_settings,
)

__all__ = [
    "PATH",
    "SECTIONS",
    "Cluster",
    "Family",
    "Params",
    "Range",
    "Resolved",
    "Train",
    "Tune",
    "budget_key",
    "known_facts",
    "load",
    "measured",
    "read_yaml",
    "resolve",
    "setting_of",
    "suiting",
    "with_settings",
]
