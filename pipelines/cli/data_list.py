"""The command `data list`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipelines.cli.options import AsJson


def data_list(as_json: AsJson = False) -> None:
    """List the cards of data/catalog/: their kind, where the data comes from, and what is prepared of it."""
    from data.cards import CATALOG
    from pipelines.cli.tables import print_json, print_table

    if not CATALOG.is_dir():
        raise FileNotFoundError(f"there is no folder {CATALOG} here; run from the project's root folder")
    found = [_described(path) for path in sorted(CATALOG.glob("*.yaml"))]
    if as_json:
        print_json(found)
        return
    if not found:
        print("no dataset yet: `fivefold data add SOURCE --name NAME` makes a card")
        return
    rows = [
        (
            entry["name"],
            entry["kind"],
            ", ".join(f"{split} {count:,}" for split, count in entry["prepared"].items()) or "no",
            entry["fault"] or entry["title"] or entry["source"],
        )
        for entry in found
    ]
    print_table(("dataset", "kind", "prepared", "what"), rows)


def _described(path: Path) -> dict[str, Any]:
    """A card as an entry of the list; a faulty one says so."""
    from data.cards import load_card
    from pipelines.paths import prepared_folder

    name = path.stem
    entry: dict[str, Any] = {"name": name, "kind": "", "title": "", "source": "", "prepared": {}, "fault": ""}
    try:
        card = load_card(name, Path())
        source = card.source.builtin or card.source.path or card.source.url
        entry |= {"kind": card.kind, "title": card.title, "source": source}
    except (ValueError, OSError) as error:
        entry["fault"] = f"faulty: {error}"
    try:
        manifest = json.loads((prepared_folder(name) / "manifest.json").read_text(encoding="utf-8"))
        entry["prepared"] = {split: facts["count"] for split, facts in manifest["splits"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass  # not prepared, or no longer whole: `data show` says which
    return entry
