"""The command `data check`."""

from __future__ import annotations

from pipelines.cli.options import CardName


def data_check(name: CardName) -> None:
    """Check that a source is what its card states; what changed is named.

    `dvc repro` does so where a source was edited, and goes no further.
    """
    from pipelines.cli.data import check

    check(name)
