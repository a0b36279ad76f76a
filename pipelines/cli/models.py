"""The command `models`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from pipelines.cli.options import AsJson, known_datasets


def models(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]", help="Of one registered model: a dataset's name.", autocompletion=known_datasets
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the registered models: their versions, families, and the jobs whose aliases they hold."""
    from data.schema import check_name
    from pipelines import tracking
    from pipelines.cli.tables import print_json, print_table

    if name is not None:
        check_name(name)
    found = _listed(name) if tracking.store_exists() else []
    if name is not None and not found:
        from data.schema import nearest

        known = sorted({entry["model"] for entry in _listed(None)}) if tracking.store_exists() else []
        hint = nearest(name, known) if known else "; none is registered yet: `dvc repro` ends in registered models"
        raise ValueError(f"there is no registered model {name!r}{hint}")
    if as_json:
        print_json(found)
    elif not found:
        print("no model is registered yet: `dvc repro` trains, measures and registers them")
    else:
        rows = [
            (entry["model"], str(entry["version"]), entry["family"], ", ".join(entry["aliases"]), entry["commit"][:12])
            for entry in found
        ]
        print_table(("model", "version", "family", "job", "commit"), rows)


def _listed(name: str | None) -> list[dict[str, Any]]:
    """An entry per version."""
    from pipelines import tracking

    tracking.connect()
    entries = []
    for model in [name] if name else tracking.model_names():
        held: dict[int, list[str]] = {}
        for alias, number in tracking.aliases(model).items():
            held.setdefault(number, []).append(alias)
        entries += [
            {
                "model": model,
                "version": version.number,
                "family": version.tags.get("family", ""),
                "aliases": sorted(held.get(version.number, [])),
                "uri": f"models:/{model}/{version.number}",
                "commit": version.tags.get("git_commit", ""),
                "run": version.run_id,
            }
            for version in tracking.versions(model)
        ]
    return entries
