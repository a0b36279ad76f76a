"""Where each dataset's prepared data and results lie."""

from __future__ import annotations

from pathlib import Path


def prepared_folder(dataset: str) -> Path:
    """Where `prepare` leaves a dataset."""
    return Path("data/prepared") / dataset


def runs_folder(dataset: str) -> Path:
    """Where everything made from a dataset lies."""
    return Path("runs") / dataset


def card_file(dataset: str) -> Path:
    """Where a dataset's card lies."""
    return Path("data/catalog") / f"{dataset}.yaml"


def settings_file(dataset: str) -> Path:
    """Where the settings lie that a dataset's families are trained with."""
    return runs_folder(dataset) / "settings.yaml"
