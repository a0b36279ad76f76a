"""The account of a preparation: JSON for machines, a Markdown card with pictures for people."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data.cards import Card
from data.findings import Findings
from data.splitting import Division
from data.writing import write_json


def write_summary(folder: Path, card: Card, manifest: dict[str, Any], findings: Findings, division: Division) -> None:
    """Write `report.json`."""
    write_json(folder / "report.json", {**findings.as_dict(), "duplicates": division.facts})
