"""How long families train: budgets of time made into examples, and batches no larger than the data."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from models import FAMILIES
from pipelines.config.layout import section_of
from pipelines.config.sections import Family, Resolved
from pipelines.defaults import Facts
from pipelines.defaults.layers import Setting, merged
from pipelines.training.durations import parse_duration


def budget_key(chosen: Family, facts: Facts) -> str:
    """Of what a budget was measured for: settings, data and machine."""
    training = dataclasses.asdict(chosen.training)
    kept = {key: value for key, value in training.items() if key != "total_examples"}
    of = {"model": dataclasses.asdict(chosen.model), "training": kept, "facts": dataclasses.asdict(facts)}
    return hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()[:12]


def with_budget(user: dict[str, Any]) -> dict[str, Any]:
    """`budget` is every family's that has neither its own nor its own number of examples."""
    try:
        parse_duration(str(user.get("budget", "")))
    except ValueError:
        return user
    result = dict(user)
    for family in FAMILIES:
        own = section_of(user, family)
        training = section_of(own, "training")
        if training.get("budget") is None and training.get("total_examples") is None:
            result[family] = merged(own, {"training": {"budget": user["budget"]}})
    return result


def in_batches(resolved: Resolved) -> Resolved:
    """Batches no larger than the training split; of too few examples for any the stage `train` tells."""
    families, origins, facts = dict(resolved.params.family), dict(resolved.origins), resolved.facts
    for name, chosen in families.items():
        training = chosen.training
        fitting = facts.examples - facts.examples % training.virtual_ranks
        if 0 < fitting < training.batch_size:
            before = origins[key := f"{name}.training.batch_size"]
            overrides = ((before.source, before.value), *before.overrides)
            origins[key] = Setting(fitting, f"{facts.examples} training examples", overrides)
            families[name] = _replaced(chosen, batch_size=fitting)
    params = dataclasses.replace(resolved.params, family=families)
    return dataclasses.replace(resolved, params=params, origins=origins)


def in_budget(resolved: Resolved, order: list[str], known: Mapping[str, Any]) -> Resolved:
    """Budgets made into examples where this has been measured; a number of examples set later goes before a budget."""
    families, origins, unmeasured = dict(resolved.params.family), dict(resolved.origins), []
    for name, chosen in families.items():
        budget, total = (origins[f"{name}.training.{key}"] for key in ("budget", "total_examples"))
        if not chosen.training.budget:
            continue
        if order.index(budget.source) < order.index(total.source):
            families[name] = _replaced(chosen, budget="")
            origins[f"{name}.training.budget"] = Setting("", total.source, ((budget.source, budget.value),))
            continue
        found = section_of(known, name)
        if found.get("of") != budget_key(chosen, resolved.facts):
            unmeasured.append(name)
            continue
        kept = origins[f"{name}.training.evaluations"].source == order[-1]
        changes = {key: found[key] for key in ("total_examples", "evaluations") if key != "evaluations" or not kept}
        for key in changes:
            before = origins[f"{name}.training.{key}"]
            if before.value != found[key]:
                source = f"budget {budget.value}"
                overrides = ((before.source, before.value), *before.overrides)
                origins[f"{name}.training.{key}"] = Setting(found[key], source, overrides)
        families[name] = _replaced(chosen, **changes)
    params = dataclasses.replace(resolved.params, family=families, unmeasured=tuple(unmeasured))
    return dataclasses.replace(resolved, params=params, origins=origins)


def _replaced(chosen: Family, **changes: Any) -> Family:
    return dataclasses.replace(chosen, training=dataclasses.replace(chosen.training, **changes))
