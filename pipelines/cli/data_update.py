"""The command `data update`."""

from __future__ import annotations

from pipelines.cli.options import CardName


def data_update(name: CardName) -> None:
    """Accept a source that was edited: what changed is named, and the card takes its new checksum.

    The source is read as `prepare` will read it, so what `prepare` would refuse is refused here, and the card stays.
    """
    from pipelines.cli.data import update

    update(name)
