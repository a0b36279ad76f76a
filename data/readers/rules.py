"""The card's constraints against the rows of a table: rows that break one are bad, and said."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.cards import Card
from data.domains.table import row_hashes
from data.formats import Constraints
from data.readers.base import IngestReport
from data.readers.raw_table import RawBatch

NAMED = 5


class Rules:
    """Checks rows while they are read.

    Arguments:
        card: Of the dataset.
        entries: The manifest's `table`.
        columns: The columns that the source's are made of.
        name: Of the table, for messages.

    Attributes:
        found: The constraints and their transforms.
        stated: The manifest's `constraints`; complete once all rows were read.
    Raises:
        ValueError: If a constraint does not fit its columns.
    """

    def __init__(self, card: Card, entries: list[dict[str, Any]], columns: list[dict[str, Any]], name: str) -> None:
        kept = [replace(stated, gaps=()) if card.missing == "fill" else stated for stated in card.constraints]
        rules = [{k: list(v) if isinstance(v, tuple) else v for k, v in asdict(stated).items() if v} for stated in kept]
        try:
            self.found = Constraints(rules, entries, columns)
        except ValueError as error:
            raise ValueError(f"constraints of {card.name!r}: {error}. Fix constraints in the card.") from None
        self.name = name
        self.stated = {"columns": columns, "rules": rules, "occurring": self.found.occurring}
        self.lost: Counter[str] = Counter()
        self.hashes: dict[int, list[NDArray[np.uint64]]] = {}
        self.rows: dict[int, list[NDArray[np.int64]]] = {}

    def check(self, x: NDArray[np.float64], batch: RawBatch, bad: NDArray[np.bool_], report: IngestReport) -> None:
        """Note the rows that break a constraint, and what the others teach.

        Raises:
            ValueError: If there is such a row and bad ones are not to be dropped.
        """
        values = self.found.involved(x)
        self.found.learn(values, ~bad)
        for place, held in self.found.holds(values).items():
            rows = np.flatnonzero(~held & ~bad)
            for row in rows.tolist():
                rule = self.found.rules[place]
                more = ", ".join(map(str, batch.rows[rows[:NAMED]])) + (", …" if len(rows) > NAMED else "")
                where = f"{batch.file}: row {batch.rows[row]}"
                source = self.found.source
                names = dict.fromkeys(str(source[name].get("of", name)) for name in rule.names)
                cells = ", ".join(f"{name} = {batch.columns[name][row].as_py()!r}" for name in names)
                cells = cells.replace("= b'", "= '")
                rest = f" (broken in rows {more})" if len(rows) > 1 else ""
                report.reject(where, f"breaks the constraint {rule.text}", f"expected {rule.text}, got {cells}{rest}")
                bad[row] = True
        self._count_lost(values, ~bad)
        for place, key in self.found.keys(x).items():
            known = ~np.isnan(key).any(1) & ~bad
            self.hashes.setdefault(place, []).append(row_hashes(key[known]))
            self.rows.setdefault(place, []).append(batch.rows[known])

    def _count_lost(self, values: dict[str, NDArray[np.float64]], good: NDArray[np.bool_]) -> None:
        """Cells of computed columns that gaps elsewhere leave without anything to compute them from."""
        deduced = self.found.deduced(values)
        for name in self.found.order:
            gaps = np.isnan(np.stack([deduced[other] for other in self.found.made_of(name)]))
            without = gaps.any(0) if self.found.is_made(name) else gaps.all(0)
            self.lost[name] += int((~np.isnan(values[name]) & without & good).sum())

    def finish(self, report: IngestReport) -> None:
        """Refuse rows that repeat what is unique, and say what is lost.

        Raises:
            ValueError: If two rows have the same key.
        """
        for place, parts in self.hashes.items():
            rule, hashes, rows = self.found.rules[place], np.concatenate(parts), np.concatenate(self.rows[place])
            _, first, counts = np.unique(hashes, return_index=True, return_counts=True)
            if (counts > 1).any():
                again = np.setdiff1d(np.arange(len(hashes)), first)
                shown = ", ".join(map(str, rows[again[:NAMED]])) + (", …" if len(again) > NAMED else "")
                raise ValueError(
                    f"{self.name}: {rule.text}, but {len(again)} rows repeat earlier ones (rows {shown}). "
                    "Fix the source, or take the constraint out of the card."
                )
        for name, count in self.lost.items():
            if count:
                report.warn(
                    f"{count} cells of {name!r} are known though what it is computed from is missing: these cells are "
                    "not learned"
                )
