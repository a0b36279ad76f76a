"""Reaching the MLflow server: quickly, quietly, or with a message that says what to do."""

from __future__ import annotations

import contextlib
import functools
import getpass
import json
import logging
import os
import re
import socket
import sqlite3
import subprocess
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar
from urllib.parse import urlsplit

from pipelines.paths import project_folder

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


P = ParamSpec("P")
T = TypeVar("T")

DEFAULT_URI = "sqlite:///mlflow.db"
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "60"}
"""How long a stage waits for a server, where the user has not said; MLflow alone would retry for minutes."""
IMPATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "3"}
"""How long anything waits that must not hold up training."""
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
LONGEST_PARAM = 500
"""Characters kept of a param's value."""


def connect(uri: str | None = None) -> str:
    """Point MLflow at its store and make sure, within seconds, that it answers.

    Arguments:
        uri: The store; by default `MLFLOW_TRACKING_URI`, else `sqlite:///mlflow.db`.
    Returns:
        The store's URI.
    Raises:
        ConnectionError: If the store cannot be reached or used, naming it and the fix.
    """
    uri = _store_uri(uri)
    for name, value in (QUIET | PATIENCE).items():
        os.environ.setdefault(name, value)
    with warnings.catch_warnings():  # it warns of its own code
        warnings.simplefilter("ignore")
        import mlflow
        import mlflow.pyfunc
    _hush()
    try:
        _knock(uri)
        with environment(IMPATIENCE):
            mlflow.MlflowClient(uri).search_experiments(max_results=1)
        _follow_move(uri)
    except Exception as error:
        raise ConnectionError(
            f"The MLflow store at {_without_password(uri)} cannot be used: {reason(error)}. Start it, or correct "
            f"MLFLOW_TRACKING_URI, or unset MLFLOW_TRACKING_URI to use {DEFAULT_URI} in this folder."
        ) from error
    mlflow.set_tracking_uri(uri)
    return uri


def _store_uri(uri: str | None = None) -> str:
    """The store's URI; that of the default with its whole path."""
    uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI
    return f"sqlite:///{(project_folder() / 'mlflow.db').absolute()}" if uri == DEFAULT_URI else uri


def _store_file(uri: str) -> Path | None:
    """The file or folder that a store of this machine is; None for a server."""
    parts = urlsplit(uri)
    if parts.scheme == "sqlite":
        return Path(uri.removeprefix("sqlite:///"))
    if parts.scheme in ("", "file"):
        return Path(parts.path)
    return None


def store_exists() -> bool:
    """Whether there is a store to read; `connect` would make one."""
    path = _store_file(_store_uri())
    return path is None or path.exists()


def examine() -> str:
    """Say where the store is and whether it can be used, and leave nothing behind.

    Returns:
        One line.
    Raises:
        ConnectionError: If the store cannot be reached or used, naming it and the fix.
    """
    uri = _store_uri()
    path = _store_file(uri)
    if path is None:
        return f"MLflow store {_without_password(connect(uri))}"
    try:
        _knock(uri if urlsplit(uri).scheme == "sqlite" else f"sqlite:///{path.absolute()}")
        if not path.exists():
            return f"MLflow store {uri}, which the first run makes"
        if urlsplit(uri).scheme == "sqlite":
            with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
                database.execute("SELECT COUNT(*) FROM experiments").fetchone()
    except (OSError, sqlite3.Error) as error:
        raise ConnectionError(
            f"The MLflow store at {uri} cannot be used: {reason(error)}. Move it away, or correct MLFLOW_TRACKING_URI."
        ) from error
    return f"MLflow store {uri}"


def answered(function: Callable[P, T]) -> Callable[P, T]:
    """Let a function fail with a `ConnectionError` in one paragraph where MLflow fails it."""

    @functools.wraps(function)
    def wrapped(*arguments: P.args, **options: P.kwargs) -> T:
        from mlflow.exceptions import MlflowException

        try:
            return function(*arguments, **options)
        except MlflowException as error:
            raise ConnectionError(
                f"MLflow failed ({reason(error)}). What was said before stays; run the same command again when "
                f"{_without_password(os.environ.get('MLFLOW_TRACKING_URI', DEFAULT_URI))} is well."
            ) from error

    return wrapped


def is_absence(error: Exception) -> bool:
    """Whether MLflow says that what was asked for does not exist."""
    return getattr(error, "error_code", "") == "RESOURCE_DOES_NOT_EXIST"


OLD_RUN = "migrated.run_id"
"""Tag of a run: its ids in the stores that it has been in before, the first one first."""


def moved_from(run_id: str) -> str:
    """What MLflow is asked to find the run that had this id in another store."""
    return f"tags.`{OLD_RUN}` LIKE '%{run_id}%'"


def find_run(run_id: str) -> Run:
    """A run by its id, or by the one that it had before it was migrated to this store.

    Raises:
        MlflowException: If there is none, or the server is away.
    """
    from mlflow.exceptions import MlflowException

    client = get_client()
    try:
        return client.get_run(run_id)
    except MlflowException as error:
        if not is_absence(error):
            raise
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        found = client.search_runs(experiments, moved_from(run_id), max_results=1)
        if not found:
            raise
        return found[0]


def get_client() -> MlflowClient:
    """A client of the store that `connect` found."""
    import mlflow

    return mlflow.MlflowClient()


def _knock(uri: str) -> None:
    """Fail at once where MLflow would try for minutes: a closed port, a database that cannot be written."""
    parts = urlsplit(uri)
    if parts.scheme == "sqlite":
        path = Path(uri.removeprefix("sqlite:///") or ".").absolute()
        nearest = next(folder for folder in (path, *path.parents) if folder.exists())
        if not os.access(nearest, os.W_OK):
            raise PermissionError(f"no permission to write {nearest}")
    elif parts.hostname and parts.port and parts.scheme not in ("http", "https"):
        socket.create_connection((parts.hostname, parts.port), timeout=3).close()


PLACES = {
    "experiments": "artifact_location",
    "runs": "artifact_uri",
    "logged_models": "artifact_location",
    "model_versions": "storage_location",
}
"""Where a store in a file notes, by table, the folder in which files lie: always with the whole path."""


def _follow_move(uri: str) -> None:
    """Correct the paths of a store in a file whose folder, with `mlruns` in it, was moved since."""
    path = Path(uri.removeprefix("sqlite:///"))
    here = path.absolute().parent / "mlruns"
    if not uri.startswith("sqlite:///") or not path.exists() or not here.is_dir():
        return
    with contextlib.closing(sqlite3.connect(path, timeout=20)) as store, store:
        rows = store.execute("SELECT artifact_location FROM experiments WHERE artifact_location LIKE '/%/mlruns/%'")
        noted: dict[str, list[str]] = {}
        for (place,) in rows.fetchall():
            before, _, rest = str(place).rpartition("/mlruns/")
            noted.setdefault(before, []).append(rest)
        for before, names in noted.items():
            there = f"{before}/mlruns"
            if there == str(here) or Path(there).exists() or not any((here / name).is_dir() for name in names):
                continue
            for table, column in PLACES.items():
                store.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
                    (f"{here}/", len(there) + 2, len(there) + 1, f"{there}/"),
                )
            logging.getLogger(__name__).warning("%s was in %s; its paths were corrected.", here, before)


def _hush() -> None:
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in ("urllib3", "mlflow.system_metrics", "mlflow.utils.autologging_utils", "mlflow.store.db"):
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # tells with its traceback what it raises


@contextlib.contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Environment variables for the time of a block (MLflow reads its patience from there at every request)."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


def reason(error: BaseException) -> str:
    """The cause of a failure in one line, without the layers around it."""
    text = " ".join(str(error).split())
    if found := re.search(r"\(Caused by \w+\(.*?: (.*?)['\"]?\)\)?$", text):
        text = found[1]
    return text.split(" [SQL:")[0].rstrip(".")[:300] or type(error).__name__


def _without_password(uri: str) -> str:
    return re.sub(r"(://[^:/@]+):[^@]*@", r"\1:…@", uri)


def user() -> str:
    """Who runs this process."""
    with contextlib.suppress(Exception):
        return getpass.getuser()
    return "unknown"


def code_version(folder: str | Path = ".") -> dict[str, str]:
    """Tags that say which code ran: `git_commit` and `git_dirty`; empty where there is no git.

    `dvc.lock`, which `dvc repro` rewrites while it runs, does not count as a change.
    """

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()

    try:
        commit = git("rev-parse", "HEAD")
        changed = git("status", "--porcelain", "--", ".", ":(exclude)dvc.lock")
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"git_commit": commit, "git_dirty": str(bool(changed)).lower()}


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as MLflow params: keys joined by dots, long values cut with their length stated."""
    flat: dict[str, str] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
            if len(text) > LONGEST_PARAM:
                text = f"{text[: LONGEST_PARAM - 30]}… ({len(text)} characters)"
            flat[allowed(f"{prefix}{key}")] = text
    return flat


def allowed(name: str) -> str:
    """A name as MLflow allows it for params, metrics and pictures."""
    return re.sub(r"[^\w\-./ ]", "_", name, flags=re.ASCII)[:250]
