"""The command `data show`."""

from __future__ import annotations

from pipelines.cli.options import AsJson, CardName


def data_show(name: CardName, as_json: AsJson = False) -> None:
    """Print card, counts and a few examples."""
    from pipelines.cli.data import as_dict, show
    from pipelines.cli.tables import print_json

    print_json(as_dict(name)) if as_json else show(name)
