"""What `prepare` read, converted, left out and why."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

FIRST = 20


@dataclass(kw_only=True, slots=True)
class Findings:
    """A running account of a source.

    Arguments:
        on_bad: `fail` raises at the first bad example, `drop` counts it.
        max_bad: The share of bad examples above which `drop` raises, too.
    """

    on_bad: str = "fail"
    max_bad: float = 0.01
    read: int = 0
    bad: Counter[str] = field(default_factory=Counter)
    bad_first: list[dict[str, str]] = field(default_factory=list)
    converted: Counter[str] = field(default_factory=Counter)
    converted_first: dict[str, list[str]] = field(default_factory=dict)
    ignored: Counter[str] = field(default_factory=Counter)
    missing: dict[str, Counter[str]] = field(default_factory=dict)
    unlabelled: int = 0
    warnings: list[str] = field(default_factory=list)

    @property
    def dropped(self) -> int:
        """Number of examples left out because they are bad."""
        return sum(self.bad.values())

    def reject(self, where: str, reason: str, detail: str) -> None:
        """Note a bad example.

        Arguments:
            where: File, row, column: what a person needs to find it.
            reason: A few words that are the same for every example with this fault.
            detail: Expected and got.
        Raises:
            ValueError: If bad examples are not to be dropped.
        """
        if self.on_bad == "fail":
            raise ValueError(
                f"{where}: {reason}: {detail.rstrip('.')}. Mend the source, or set `on_bad: drop` in the card "
                f"to leave such examples out (up to a share of `max_bad: {self.max_bad:g}`)."
            )
        self.bad[reason] += 1
        if len(self.bad_first) < FIRST:
            self.bad_first.append({"where": where, "reason": reason, "detail": detail})

    def convert(self, what: str, where: str, count: int = 1) -> None:
        """Note a defined conversion of an example."""
        self.converted[what] += count
        first = self.converted_first.setdefault(what, [])
        if len(first) < 3:
            first.append(where)

    def warn(self, text: str) -> None:
        """Note something a person should look at, once."""
        if text not in self.warnings:
            self.warnings.append(text)

    def close(self, source: str) -> None:
        """Check the account once the source has been read.

        Raises:
            ValueError: If too large a share of the examples was bad, or none was good.
        """
        total = self.read + self.dropped
        if self.dropped > self.max_bad * total:
            causes = ", ".join(f"{count} × {reason}" for reason, count in self.bad.most_common())
            first = self.bad_first[0]
            raise ValueError(
                f"{source}: {self.dropped} of {total} examples are bad, more than `max_bad: {self.max_bad:g}` allows: "
                f"{causes}; the first is {first['where']}: {first['detail']}. Mend the source, or raise max_bad."
            )
        if not self.read:
            raise ValueError(f"{source} holds no examples. Give a source with data in it.")

    def as_dict(self) -> dict[str, Any]:
        """The account as JSON holds it."""
        return {
            "read": self.read,
            "dropped": self.dropped,
            "dropped_by_reason": dict(sorted(self.bad.items())),
            "dropped_first": self.bad_first,
            "converted": dict(sorted(self.converted.items())),
            "converted_first": dict(sorted(self.converted_first.items())),
            "ignored_files": dict(sorted(self.ignored.items())),
            "without_label": self.unlabelled,
            "missing_cells": {name: dict(sorted(counts.items())) for name, counts in self.missing.items()},
            "warnings": self.warnings,
        }
