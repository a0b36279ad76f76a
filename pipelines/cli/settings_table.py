"""What `fivefold settings` prints: every value, where it comes from and what it goes before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from data.schema import nearest
from models import FAMILIES
from pipelines import config
from pipelines.config import Resolved, setting_of
from pipelines.defaults.layers import Setting
from pipelines.paths import runs_folder
from pipelines.stages.settings import expected
from pipelines.stages.train import tuned, with_tuned


def show(family: str = "", *, dataset: str | None = None, as_json: bool = False) -> None:
    """Print the settings that hold.

    Arguments:
        family: Only these; all families and the stages if empty.
        dataset: Use this dataset instead of the one in `params.yaml`.
        as_json: Print JSON: value, source and what it overrides, by dotted name.

    Raises:
        ValueError: If a setting does not fit, or there is no such family.
        FileNotFoundError: If there is no `params.yaml`.
    """
    name = family.lower()
    if name and name not in FAMILIES:
        raise ValueError(f"unknown family {family!r}{nearest(name, list(FAMILIES))}")
    resolved = config.resolve(dataset=dataset)
    origins = dict(resolved.origins)
    for each in resolved.params.families:
        origins |= found_by_search(each, resolved)
    shown = [*resolved.params.families] if not name else [name]
    left_out = set(FAMILIES) - set(shown)
    chosen = {
        key: setting
        for key, setting in origins.items()
        if (key.split(".")[0] not in left_out if not name else key.startswith(f"{name}."))
    }
    if as_json:
        print(json.dumps({key: _entry(setting) for key, setting in chosen.items()}, indent=1))
        return
    wide = max(map(len, chosen))
    values = {key: json.dumps(setting.value) if isinstance(setting.value, (list, bool)) else str(setting.value)
              for key, setting in chosen.items()}  # fmt: skip
    most = max(map(len, values.values()))
    for key, setting in chosen.items():
        over = "; ".join(f"{source}: {value}" for source, value in setting.overrides)
        print(f"{key:{wide}}  {values[key]:{most}}  {setting.source}{f'  (over {over})' if over else ''}")
    known = config.measured(Path(), resolved.params.dataset)
    for each in shown:
        print(f"{each}: {expected(each, resolved, known)}")


def found_by_search(family: str, resolved: Resolved) -> dict[str, Setting]:
    """What the stage `tune` found better than these settings, if it was these that it varied."""
    params, folder = resolved.params, runs_folder(resolved.params.dataset)
    path = folder / "tune" / f"{family}.json"
    if not params.tune.enabled or not path.exists():
        return {}
    left, written = tuned(folder, family), params.family[family]
    varied = {name: setting_of(written, name) for name in written.search}
    if not any(trial["as_written"] and trial["settings"] == varied for trial in left.get("trials", ())):
        return {}
    best = with_tuned(written, folder, family)
    found = {}
    for name in left["settings"]:
        before = resolved.origins[f"{family}.{name}"]
        overrides = ((before.source, before.value), *before.overrides)
        found[f"{family}.{name}"] = Setting(setting_of(best, name), path.as_posix(), overrides)
    return found


def _entry(setting: Setting) -> dict[str, Any]:
    overrides = [{"source": source, "value": value} for source, value in setting.overrides]
    return {"value": setting.value, "source": setting.source, "overrides": overrides}
