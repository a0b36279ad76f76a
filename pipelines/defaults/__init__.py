"""Settings that suit the data, in one place: rules by kind, size, channels, examples, classes, columns and device.

A recipe and `params.yaml` go before them; what no rule names has the default of its dataclass. Each rule says why.
Where a figure was measured, it is processor seconds of one core of a Xeon with avx512_bf16, or samples'
Fréchet distance on 10,000 digits of 28x28 after five minutes on two such cores (docs/benchmarks.md).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from pipelines.defaults.domains import rules_of
from pipelines.defaults.facts import Facts, facts_of, machine_facts
from pipelines.defaults.layers import nested

__all__ = ["Facts", "defaults", "expected_seconds", "facts_of", "machine_facts"]


SHORT = 50_000
"""Examples below which the usual warm-up would be too great a part of a training."""


def defaults(facts: Facts) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Settings that suit the data, by section, and why, by dotted name.

    A section is a stage's (`tune`, `features`, `evaluate`) or a family's; what no rule names is left out.
    """
    rules = rules_of(facts.kind).rules(facts)
    why: dict[str, str] = {}
    settings: dict[str, dict[str, Any]] = {}
    for section, values in rules.items():
        plain: dict[str, Any] = {}
        for name, value in values.items():
            plain[name], reason = value if isinstance(value, tuple) else (value, "")
            why |= {f"{section}.{name}": reason} if reason else {}
        total = plain.get("training.total_examples", SHORT)
        if total < SHORT:
            plain["training.warmup_examples"] = total // 10
            why[f"{section}.training.warmup_examples"] = "a tenth of so short a training"
        settings[section] = nested(plain)
    return settings, why


STARTING, SCORING = 12, 3
"""Seconds until the first update, and about what it takes to finish a model, draw from it and score it."""


def expected_seconds(family: str, facts: Facts, training: Mapping[str, Any], cores: int = 0) -> float:
    """About how long a training takes with these rules' networks; 0 where nothing is known.

    Arguments:
        family: Which.
        facts: Of the data and the machine.
        training: How many examples it sees, and how often it is evaluated.
        cores: Of this machine, by default all.
    """
    kind = rules_of(facts.kind)
    useful = kind.useful_cores(facts, cores or os.cpu_count() or 1)
    updates = kind.seconds_per_thousand(family, facts) * training["total_examples"] / 1_000 / useful
    return STARTING + SCORING * training.get("evaluations", 8) + updates if updates else 0.0
