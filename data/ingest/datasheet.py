"""The account of a preparation: JSON for machines, a Markdown page with pictures for people."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data.cards import Card
from data.domains import KINDS
from data.domains.table import cell_text
from data.files import write_atomically, write_json
from data.ingest.splits import SplitAssignment
from data.quoting import in_markdown
from data.readers.base import IngestReport


def write_summary(
    folder: Path, card: Card, manifest: dict[str, Any], ingest_report: IngestReport, assignment: SplitAssignment
) -> None:
    """Write `report.json`, `README.md` and, for images, `contact.png` into a prepared dataset.

    Nothing in them depends on when or where the data was prepared.
    """
    report = {
        "dataset": card.name,
        "digest": manifest["digest"],
        "policy": {"on_bad": card.on_bad, "max_bad": card.max_bad, "duplicates": card.duplicates},
        **ingest_report.as_dict(),
        "duplicates": assignment.facts,
        "unused": int((assignment.split < 0).sum()) - assignment.facts["dropped"],
    }
    write_json(folder / "report.json", report)
    KINDS[card.kind].write_preview(folder, manifest)
    write_atomically(folder / "README.md", _page(card, manifest, report))


def _page(card: Card, manifest: dict[str, Any], report: dict[str, Any]) -> str:
    source = manifest["source"]
    place = source.get("url") or source.get("path") or f"built in: {source.get('builtin')}"
    licence, citation = (in_markdown(text) or "not stated" for text in (card.licence, card.citation))
    parts = [
        f"# {in_markdown(card.title) or card.name}",
        f"Dataset `{card.name}`, digest `{manifest['digest']}`.",
        f"Licence: {licence}. Citation: {citation}.",
        f"Source: `{place}`, SHA-256 `{source.get('sha256') or 'not stated'}`.",
        "## Splits\n\n" + _splits(manifest),
        "## What was read\n\n" + "\n".join(f"- {line}" for line in account(report)),
        KINDS[card.kind].section(manifest),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _splits(manifest: dict[str, Any]) -> str:
    names = manifest["class_names"][:20]
    lines = ["| " + " | ".join(["split", "examples", *map(cell_text, names)]) + " |", "|---" * (2 + len(names)) + "|"]
    for name, split in manifest["splits"].items():
        counts = [str(split["labels"][label]) for label in names] if names else []
        lines.append("| " + " | ".join([name, str(split["count"]), *counts]) + " |")
    how = "as published" if manifest["published_splits"] else "drawn here: deterministic, stratified by label"
    return "\n".join(lines) + f"\n\nSplits are {how}."


def account(report: dict[str, Any]) -> list[str]:
    """What a report says, in lines for people."""
    policy = report["policy"]["on_bad"]
    lines = [f"{report['read']} examples read, {report['dropped']} bad ones left out (`on_bad: {policy}`)"]
    lines += [f"left out: {count} × {reason}" for reason, count in report["dropped_by_reason"].items()]
    lines += [f"{item['where']}: {item['reason']}: {item['detail']}" for item in report["dropped_first"]]
    lines += [f"converted: {count} × {what}" for what, count in report["converted"].items()]
    lines += [f"ignored: {count} × {what}" for what, count in report["ignored_files"].items()]
    if report.get("without_label"):
        lines.append(f"{report['without_label']} examples have no label (their label is -1)")
    for column, counts in report["missing_cells"].items():
        tokens = ", ".join(f"{count} × {token!r}" for token, count in counts.items())
        lines.append(f"missing cells in {column!r}: {tokens}")
    copies = report["duplicates"]
    if copies["contents_repeated"]:
        lines.append(
            f"{copies['contents_repeated']} contents occur more than once ({copies['extra_copies']} extra copies), "
            f"{copies['across_splits']} of them in more than one split, {copies['conflicting_labels']} under more than "
            f"one label; policy `{copies['policy']}`: {copies['dropped']} copies left out, {copies['moved']} moved"
            + (f" ({copies['note']})" if "note" in copies else "")
        )
    else:
        lines.append("no content occurs more than once")
    if report["unused"]:
        lines.append(f"{report['unused']} examples belong to no split")
    return lines + [f"look at this: {warning}" for warning in report["warnings"]]
