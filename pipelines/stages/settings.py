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
from pipelines.config import Params
from pipelines.layers import nested
from pipelines.paths import settings_file

TRACKED = ("train", "tune", "features", "evaluate")


def settings(*, dataset: str | None = None, root: Path = Path()) -> Path:
    """Write the settings of a dataset; returns the file.

    Arguments:
        dataset: Use this dataset instead of the one in `params.yaml`.
        root: The project's folder.

    Raises:
        ValueError: If a setting does not fit.
        FileNotFoundError: If there is no `params.yaml`.
    """
    params = config.load(root / config.PATH, dataset=dataset)
    path = root / settings_file(params.dataset)
    text = settings_text(params)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_atomically(path, text)
    return path


def settings_text(params: Params) -> str:
    """The settings as YAML, in the layout of `params.yaml`, every value said."""
    content: dict[str, Any] = {"seed": params.seed}
    content |= {name: plain(getattr(params, name)) for name in TRACKED}
    for name in params.families:
        family = params.family[name]
        ranges = {key: plain(span) for key, span in family.search.items()}
        content[name] = {"model": plain(family.model), "training": plain(family.training), "search": nested(ranges)}
    yaml, text = YAML(typ="safe", pure=True), io.StringIO()
    yaml.default_flow_style, yaml.width = False, 1000
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[attr-defined]  # the order of params.yaml
    yaml.dump(content, text)
    return (
        f"# What `{params.dataset}` is trained with; `fivefold settings` says where each value comes from.\n"
        f"# Written by the stage `settings`: to change a value, edit params.yaml or the recipe.\n{text.getvalue()}"
    )


def plain(content: Any) -> dict[str, Any]:
    """A dataclass as what YAML and JSON know."""
    known: Mapping[str, Any] = dataclasses.asdict(content)
    return json.loads(json.dumps(known))
