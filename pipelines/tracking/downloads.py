"""Registered files fetched, and compared with what vouches for them before anything of them runs."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.serving.entry import vouched
from pipelines.tracking import vouching
from pipelines.tracking.server import answered, reason
from pipelines.tracking.versions import REMEDY, Version, find_version

if TYPE_CHECKING:
    from mlflow.pyfunc import PyFuncModel


@answered
def download(version: Version, folder: str | Path, uri: str = "") -> Path:
    """Fetch a version's files; returns the MLflow model's folder."""
    from mlflow.artifacts import download_artifacts

    return Path(download_artifacts(uri or f"models:/{version.name}/{version.number}", dst_path=str(folder)))


def check_files(version: Version, uri: str = "", keys: str | Path | None = None) -> str:
    """Download a version's files and compare them with its tags; nothing of them runs.

    Arguments:
        version: With its tags.
        uri: Where its files are, if that is not the version.
        keys: A file of trusted public keys; by default what `FIVEFOLD_TRUSTED_KEYS` names.
    Returns:
        What vouches for them, in words.
    Raises:
        ValueError: If they are others.
    """
    with tempfile.TemporaryDirectory() as temporary:
        return checked_download(version, temporary, uri, keys)[1]


def checked_download(
    version: Version, folder: str | Path, uri: str = "", keys: str | Path | None = None
) -> tuple[Path, str]:
    """Fetch a version's files and compare them with its tags.

    Returns:
        The folder, and what vouches for it.
    Raises:
        ValueError: If the files are others than those that were registered.
    """
    from mlflow.exceptions import MlflowException

    named = uri or f"models:/{version.name}/{version.number}"
    try:
        path = download(version, folder, uri)
        return path, vouching.compare(version.name, version.tags, path, keys)
    except (ValueError, OSError, MlflowException) as error:
        if isinstance(error, ConnectionError):
            raise
        raise ValueError(f"{named} is refused: {reason(error)}.") from error


@answered
def load_served(uri: str) -> PyFuncModel:
    """Load a registered model as a careful downstream team does: its files are compared before anything of them runs.

    Arguments:
        uri: `models:/digits@generation`, say; or a folder on this machine, such as `fivefold verify --to` leaves, of
            which only the files are compared with the list that came with them.
    Raises:
        ConnectionError: If the server is away.
        ValueError: If there is no such model, or it is not what was registered.
    """
    version = None if Path(uri).is_dir() else find_version(uri)
    import mlflow

    with tempfile.TemporaryDirectory() as temporary:
        if version is None:
            vouched(uri)
        folder = uri if version is None else checked_download(version, temporary)[0]
        try:
            return mlflow.pyfunc.load_model(str(folder))
        except Exception as error:  # a URI may lead anywhere, with errors of its own
            raise ValueError(f"{uri} cannot be loaded: {reason(error)}. {REMEDY}") from error
