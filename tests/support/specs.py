"""Specs of models from settings of both kinds, each put where it belongs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from models import FAMILIES


def spec_of(family: str, settings: Mapping[str, Any], **rest: Any) -> dict[str, Any]:
    """A spec for `models.build`: settings of the model and of sampling, told apart by their names."""
    trained = {field.name for field in fields(FAMILIES[family].Config)}
    config = {name: value for name, value in settings.items() if name in trained}
    sampling = {name: value for name, value in settings.items() if name not in trained}
    return {"family": family, "config": config, "sampling": sampling, **rest}
