"""The command `data show`."""

from __future__ import annotations

from pipelines.cli.options import CardName


def data_show(name: CardName) -> None:
    """Print card, counts and a few examples."""
    from pipelines.cli.data import show

    show(name)
