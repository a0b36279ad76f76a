"""Trying out a card before it is written: what `prepare` would count or refuse is answered in the card and said."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.cards import SPLITS, Card
from data.ingest.relations import Relations
from data.ingest.splits import SplitIndex, divide
from data.readers import open_source
from data.readers.base import REPEATED_HEADERS, IngestReport, Mapper

FEW = 20
UNSAFE = "unsafe or unreadable file"
SAID = ("16-bit", "1-bit", "animation", "transparency", "CMYK", "YCbCr", "LAB", "HSV")
"""How the conversions of images begin that are said; of the others the inspection speaks itself."""


def rehearse(
    card: Card, path: Path, mapper: Mapper, say: Callable[[str], None], found: Callable[[str], None]
) -> tuple[Card, int]:
    """Read a source as `prepare` will, by the same parsers, and answer in the card what it counts.

    Arguments:
        card: What is to be written.
        path: The source.
        mapper: Where decoding happens.
        say: Called with every line on what is doubtful.
        found: Called with every line on what the data are.
    Returns:
        A card that `prepare` accepts, and how many examples there will be to train on.
    Raises:
        ValueError: If there is none: what `prepare` would say.
    """
    report = IngestReport(on_bad="drop", max_bad=1.0)
    with tempfile.TemporaryDirectory(prefix="fivefold-add-") as folder:
        reader = open_source(replace(card, on_bad="drop", max_bad=1.0), path, report, mapper)
        with closing(SplitIndex(Path(folder))) as ledger:
            relations = Relations(reader.table, reader.columns) if reader.columns else None
            for chunk in reader.chunks():
                ledger.add(chunk)
                report.read += len(chunk.x)
                if relations:
                    relations.add(chunk.x)
        card = _with_bad(card, report, str(path), say)
        card = _with_splits(card, ledger, say)
        card, split = _with_copies(card, ledger, str(path), say)
    if relations:
        proposed, doubts = relations.proposed()
        card = replace(card, constraints=proposed)
        for stated in proposed:
            text = stated.rule or f"combination of {', '.join(stated.combination)}"
            found(f"constraint {text}: {stated.why}; drawn rows obey it, too (`constraints` in the card)")
        for doubt in doubts:
            say(doubt)
    for what, count in report.converted.items():
        if what.startswith(SAID):
            found(f"{count} image(s): {what}")
    if again := report.ignored[REPEATED_HEADERS]:
        say(f"{again} row(s) that repeat the header are left out")
    if report.unlabelled:
        say(f"{report.unlabelled} of {report.read} rows have no label: they are kept, with label -1")
    return card, int((split == SPLITS.index("train")).sum())


def _with_bad(card: Card, report: IngestReport, source: str, say: Callable[[str], None]) -> Card:
    """`on_bad: drop` and a bearable `max_bad` where there are bad examples."""
    if not report.read and not report.dropped:
        report.close(source)
    if not report.dropped:
        return card
    first = report.bad_first[0]
    shown = f"{first['where']}: {first['reason']}: {first['detail'].rstrip('.')}"
    unsafe = next((item for item in report.bad_first if item["reason"] == UNSAFE), None)
    if unsafe is not None:
        raise ValueError(f"{unsafe['where']}: {UNSAFE}: {unsafe['detail'].rstrip('.')}. Take it out of the source.")
    if report.dropped > report.read:
        hint = "Is row 1 the header, and is the delimiter right? " if card.columns else ""
        raise ValueError(
            f"{shown}, and so in {report.dropped} of {report.read + report.dropped} examples. {hint}Fix the source."
        )
    total = report.read + report.dropped
    causes = ", ".join(f"{count} × {reason}" for reason, count in report.bad.most_common())
    share = max(card.max_bad, math.ceil(1000 * report.dropped / total) / 1000)
    say(
        f"{report.dropped} of {total} examples are bad ({causes}) and are left out; the first is {shown}; "
        f"the card says `on_bad: drop`, `max_bad: {share:g}`"
    )
    return replace(card, on_bad="drop", max_bad=share)


def _with_splits(card: Card, ledger: SplitIndex, say: Callable[[str], None]) -> Card:
    """Larger shares for validation and test where there are few examples."""
    published = ledger.published(keep=True)
    present = {name for code, name in enumerate(SPLITS) if (published == code).any()}
    if ledger.size < FEW and not present - {"train"} and card.splits.rows == {} and not card.splits.column:
        held_out = 2
        share = round(math.ceil(1000 * held_out / max(1, ledger.size)) / 1000, 3)
        plan = replace(card.splits, train=round(1 - 2 * share, 3), val=share, test=share)
        if plan.train * ledger.size >= 2 and share != card.splits.val:
            say(
                f"only {ledger.size} examples: {plan.val:.0%} each for validation and test, so that either has two or "
                "more; what is measured on so few says little"
            )
            return replace(card, splits=plan)
    return card


def _with_copies(
    card: Card, ledger: SplitIndex, source: str, say: Callable[[str], None]
) -> tuple[Card, NDArray[np.int8]]:
    """`duplicates: keep` where copies across published splits are too many to leave out; and each example's split."""
    try:
        split = divide(card, ledger, source, keep=True).split
    except ValueError as error:
        if "duplicates: keep" not in str(error):
            raise
        card = replace(card, duplicates="keep")
        split = divide(card, ledger, source).split
        say(f"{str(error).split(': ', 1)[-1].split(', more than')[0]}: too many to leave out; the card keeps them")
    return card, split
