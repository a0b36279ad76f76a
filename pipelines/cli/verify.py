"""The command `verify`: whether a registered model is what was registered, before anything of it runs."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.sample import model_uri


def verify(
    name_or_uri: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="A dataset's name (its best generator) or a URI such as models:/digits@density."
        ),
    ],
    to: Annotated[str, typer.Option(metavar="FOLDER", help="Keep the files there, once they were compared.")] = "",
    key: Annotated[str, typer.Option(metavar="PEM", help="Public keys of which one must have signed the model.")] = "",
) -> Path | None:
    """Download a version, compare every file with what its tags say, and print what vouches for it.

    Arguments:
        name_or_uri: A dataset (its model for the job `generation`), `<dataset>@<job>`, or `models:/…`.
        to: A new folder to keep the files in, once they were compared; nothing is kept when empty.
        key: A file of trusted public keys; by default what `FIVEFOLD_TRUSTED_KEYS` names.
    Returns:
        The folder that was kept.
    Raises:
        ValueError: If a file is another than was registered, or a weight is not finite.
        FileExistsError: If the folder is there already.
        ConnectionError: If MLflow is away.
    """
    from pipelines import tracking
    from pipelines.serving import artifact

    target = Path(to).absolute() if to else None
    if target is not None and target.exists():
        raise FileExistsError(f"{target} exists. Name a new folder, or delete it.")
    uri = model_uri(name_or_uri)
    version = tracking.find_version(uri)
    beside = None if target is None else target.parent
    if beside is not None:
        beside.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=beside) as temporary:
        folder, vouched = tracking.checked_download(version, Path(temporary), keys=key or None)
        for weights in folder.glob(f"artifacts/*/{artifact.WEIGHTS}"):
            artifact.read(weights.parent)
        print(f"{uri} is version {version.number}: {vouched}")
        if target is not None:
            os.replace(folder, target)
            print(f"load it from {target}")
    return target
