"""The stage `settings`: what holds after defaults, recipe and `params.yaml`, in a file that DVC compares.

`features`, `tune`, `train` and `evaluate` depend on their keys of `runs/<dataset>/settings.yaml`: they run again when a
value that they get has changed, wherever that was, and `dvc params diff` and `dvc exp show` tell of these values.
"""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from data.files import write_atomically
from pipelines import config
from pipelines.config import Params, Resolved
from pipelines.config.pipeline_file import PIPELINE, stage_datasets
from pipelines.defaults import expected_seconds, machine_facts
from pipelines.defaults.layers import nested
from pipelines.paths import prepared_folder, settings_file
from pipelines.training.durations import format_duration

TRACKED = ("train", "tune", "features", "evaluate")


def settings(*, dataset: str | None = None) -> Path:
    """Write the settings of a dataset, and say how long the training takes; returns the file.

    A budget of time is measured by a short training and turned into examples, once: what was measured stays in the
    file for as long as settings and data are the same.

    Arguments:
        dataset: Use this dataset instead of the one in `params.yaml`.

    Raises:
        ValueError: If a setting does not fit, a budget is too short, or `dvc.yaml` has the stages of other datasets.
        FileNotFoundError: If there is no `params.yaml`, or a budget is to be measured on data that are not prepared.
    """
    resolved = config.resolve(dataset=dataset)
    require_stages(resolved.params)
    name = resolved.params.dataset
    known = config.measured(Path(), name) or {"machine": machine_facts()}
    for family in resolved.params.unmeasured:
        if family in resolved.params.families:
            known = _with_budget_measured(family, resolved, known)
            write(name, settings_text(resolved.params, known))
    resolved = config.resolve(dataset=dataset)
    path = write(name, settings_text(resolved.params, known))
    for family in resolved.params.families:
        print(f"{family}: {expected(family, resolved, known)}")
    return path


def require_stages(params: Params) -> None:
    """Refuse a `dvc.yaml` whose stages are not those of the datasets in `params.yaml`.

    Raises:
        ValueError: With the command that writes them.
    """
    if not PIPELINE.exists():
        return
    there = stage_datasets(PIPELINE.read_text(encoding="utf-8"))
    if there != params.datasets:
        named = f"datasets: [{', '.join(params.datasets)}]" if params.datasets else "no `datasets`"
        raise ValueError(
            f"{config.PATH} has {named}, but the stages of {PIPELINE} are of {', '.join(there) or 'one dataset'}. Run "
            "`fivefold pipeline`, which writes them anew"
            + (f"; for some of them name stages, `dvc repro report@{there[0]}` say." if there else ".")
        )


def _with_budget_measured(family: str, resolved: Resolved, known: Mapping[str, Any]) -> dict[str, Any]:
    """What is known with a family's budget made into examples."""
    from pipelines.execution import probe
    from pipelines.execution.address import job_server

    params, chosen = resolved.params, resolved.params.family[family]
    if server := job_server(params.cluster):
        raise ValueError(
            f"{family}.training.budget: {chosen.training.budget} is measured on this machine, and trainings are sent "
            f"to {server}; set total_examples instead"
        )
    print(f"{family}: measuring what fits into {chosen.training.budget} …", flush=True)
    fixed = resolved.origins[f"{family}.training.evaluations"].source == config.PATH.name
    found = probe.measured(family, chosen, prepared_folder(params.dataset), params.seed, as_many=fixed)
    of = config.budget_key(chosen, resolved.facts)
    return {**known, "budgets": {**known.get("budgets", {}), family: {"of": of, **found}}}


def write(dataset: str, text: str) -> Path:
    """Put the settings into their file, unless it is the same."""
    path = settings_file(dataset)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_atomically(path, text)
    return path


def expected(family: str, resolved: Resolved, known: Mapping[str, Any]) -> str:
    """How much a family will see, and about how long that takes."""
    training = resolved.params.family[family].training
    seen = f"{training.total_examples:,} examples"
    if family in resolved.params.unmeasured:
        return f"as many examples as fit into {training.budget}, which `fivefold settings --write` measures"
    if training.budget:
        rate = known["budgets"][family]["examples_per_second"]
        return f"{seen} in {training.budget}, at {rate:g} a second"
    seconds = expected_seconds(family, resolved.facts, plain(training))
    return f"{seen}, about {format_duration(seconds)}" if seconds else seen


def settings_text(params: Params, known: Mapping[str, Any]) -> str:
    """The settings as YAML, in the layout of `params.yaml`, every value said, and what was measured for them."""
    content: dict[str, Any] = {"seed": params.seed}
    content |= {name: plain(getattr(params, name)) for name in TRACKED}
    for name in params.families:
        family = params.family[name]
        ranges = {key: plain(span) for key, span in family.search.items()}
        content[name] = {part: plain(getattr(family, part)) for part in ("model", "training", "sampling")}
        content[name]["search"] = nested(ranges)
    content["measured"] = dict(known)
    yaml, text = YAML(typ="safe", pure=True), io.StringIO()
    yaml.default_flow_style, yaml.width = False, 1000
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[attr-defined]  # the order of params.yaml
    yaml.dump(content, text)
    return (
        f"# What `{params.dataset}` is trained with; `fivefold settings` says where each value comes from.\n"
        "# To change one, edit params.yaml or the recipe. What was measured on this machine stays as it is;\n"
        f"# to measure again, remove this file.\n{text.getvalue()}"
    )


def plain(content: Any) -> dict[str, Any]:
    """A dataclass as what YAML and JSON know."""
    known: Mapping[str, Any] = dataclasses.asdict(content)
    return json.loads(json.dumps(known))
