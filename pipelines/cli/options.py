"""Options that several commands share, and how their values are read and completed."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.logs import set_level

QUIET = "ignore::FutureWarning,ignore::DeprecationWarning"
"""Warnings that libraries have for their own developers, unless `--verbose` asks for them."""


def known_families() -> list[str]:
    """The families of params.yaml, which `--family` completes to; importing them would take seconds."""
    from data.schema import parse_yaml

    path = Path("params.yaml")
    try:
        return [str(name) for name in parse_yaml(path.read_text(encoding="utf-8"), path)["families"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def known_datasets() -> list[str]:
    """Names of the cards in data/catalog/."""
    return sorted(path.stem for path in Path("data/catalog").glob("*.yaml"))


def whole_number(text: str) -> int:
    """A whole number as a person types it.

    Raises:
        typer.BadParameter: If it is none.
    """
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"must be a whole number, got {text!r}") from None


def note_verbose(context: typer.Context, value: bool) -> bool:
    """Keep that more is wanted where `main` sees it, and let warnings through."""
    if value:
        context.find_root().obj["verbose"] = True
        set_level(logging.DEBUG)
        if os.environ.get("PYTHONWARNINGS") == QUIET:
            del os.environ["PYTHONWARNINGS"]
    return value


DatasetName = Annotated[
    str | None,
    typer.Option(
        "--dataset",
        metavar="NAME",
        help="A card in data/catalog/ (default: params.yaml's).",
        autocompletion=known_datasets,
    ),
]
FamilyName = Annotated[
    str,
    typer.Option(
        "--family",
        metavar="FAMILY",
        help="One of params.yaml's families.",
        autocompletion=known_families,
    ),
]
CardName = Annotated[
    str,
    typer.Argument(metavar="NAME", help="Name of the card in data/catalog/.", autocompletion=known_datasets),
]
Verbose = Annotated[
    bool, typer.Option("-v", "--verbose", help="Say more: library logs, tracebacks.", callback=note_verbose)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of text for people.")]


AliasName = Annotated[str, typer.Argument(metavar="MODEL@JOB", help="digits@density, say.")]


def model_and_job(alias: str) -> tuple[str, str]:
    """Registered model and job of `digits@density`.

    Raises:
        ValueError: If it is not written like that.
    """
    name, _, job = alias.removeprefix("models:/").partition("@")
    if not name or not job:
        raise ValueError(f"an alias is written <model>@<job>, digits@density say, got {alias!r}.")
    return name, job
