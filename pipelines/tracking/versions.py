"""What is registered, read: models, their versions with what is known of them, and the runs that trained them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pipelines.tracking.alias_records import alias_records
from pipelines.tracking.server import answered, connect, find_run, get_client, is_absence, reason

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

MODEL = ("model_digest", "code_digest")
"""Tags that say which model a version is, whatever its job."""
RECORDS = "registry"
"""The folder of a run in which records lie."""
REMEDY = "`fivefold models` lists what can; `fivefold pin` gives an alias to a version that you choose."


@dataclass(frozen=True, kw_only=True, slots=True)
class Version:
    """A version of a registered model.

    Arguments:
        name: Of the registered model: the dataset.
        number: Of the version.
        run_id: The run that trained it.
        tags: Its lineage, as a person reads it.
        record: What else is known: its `metrics`, and what it was made with. Empty until `with_record` reads it.
    """

    name: str
    number: int
    run_id: str
    tags: Mapping[str, str]
    record: Mapping[str, Any] = field(default_factory=dict)


@answered
def model_names() -> list[str]:
    """Names of the registered models, in order."""
    found, token = [], None
    while True:
        page = get_client().search_registered_models(page_token=token)
        found += [model.name for model in page]
        token = page.token
        if not token:
            return sorted(found)


@answered
def versions(name: str) -> list[Version]:
    """All versions of a registered model, oldest first; none when it does not exist."""
    found, token = [], None
    while True:
        page = get_client().search_model_versions(f"name = '{name}'", page_token=token)
        found += [version_of(item) for item in page]
        token = page.token
        if not token:
            return sorted(found, key=lambda version: version.number)


def version_of(item: ModelVersion) -> Version:
    """A version as MLflow has it."""
    return Version(name=item.name, number=int(item.version), run_id=item.run_id or "", tags=dict(item.tags))


@answered
def aliases(name: str) -> dict[str, int]:
    """Version number by alias; empty when there is no such registered model."""
    from mlflow.exceptions import MlflowException

    try:
        return {alias: int(number) for alias, number in get_client().get_registered_model(name).aliases.items()}
    except MlflowException as error:
        if is_absence(error):
            return {}
        raise


@answered
def find_version(uri: str) -> Version:
    """The version that a URI names.

    Arguments:
        uri: `models:/digits@generation` or `models:/digits/3`.
    Raises:
        ConnectionError: If the server is away.
        ValueError: If there is no such version.
    """
    from mlflow.exceptions import MlflowException

    connect()
    named = re.fullmatch(r"models:/([^/@]+)(?:@([^/@]+)|/(\d+))", uri)
    if not named:
        raise ValueError(
            f"{uri} cannot be loaded: it names no version. Give models:/NAME@ALIAS or models:/NAME/NUMBER."
        )
    name, alias, number = named.groups()
    try:
        client = get_client()
        return version_of(
            client.get_model_version_by_alias(name, alias) if alias else client.get_model_version(name, number)
        )
    except MlflowException as error:
        raise ValueError(
            f"{uri} cannot be loaded: {why_absent(name, alias or '') or reason(error)}. {REMEDY}"
        ) from error


def why_absent(name: str, alias: str) -> str:
    """Why nobody holds an alias of a registered model, where `register` said so; empty where it did not."""
    record = alias_records(name).get(alias) if alias else None
    return record.why.rstrip(".") if record is not None and record.holder is None else ""


def model_key(tags: Mapping[str, str]) -> str:
    """Which model a version is, whatever its job: enough to know it again."""
    return "-".join(tags.get(key, "")[:16] for key in MODEL)


def record_path(tags: Mapping[str, str]) -> str:
    """Where a model's record lies, below a run that trained it."""
    return f"{RECORDS}/{model_key(tags)}.json"


def read_record(client: MlflowClient, run_id: str, tags: Mapping[str, str]) -> dict[str, Any]:
    """A model's record beside a run; empty if there is none, an error if that cannot be told."""
    from mlflow.artifacts import load_dict
    from mlflow.exceptions import MlflowException

    path = record_path(tags)
    try:
        there = {entry.path for entry in client.list_artifacts(run_id, RECORDS)}
        return load_dict(f"runs:/{run_id}/{path}") if path in there else {}
    except MlflowException as error:
        if is_absence(error):  # the run was deleted
            return {}
        raise
    except OSError as error:  # what the artifact store's clients raise
        raise ConnectionError(
            f"The record of a model, {path} of the run {run_id}, cannot be read ({reason(error)}). Run the same "
            "command again when the artifact store is well."
        ) from error


@answered
def with_record(version: Version) -> Version:
    """A version with its record, which is empty for one that was registered without.

    Raises:
        ConnectionError: If the record cannot be read.
    """
    if version.record or not version.run_id:
        return version
    return replace(version, record=read_record(get_client(), version.run_id, version.tags))


@answered
def run_record(run_id: str) -> dict[str, Any]:
    """What the registry's lineage needs to know of a run: its id here, status, tags, and its data's digests.

    Raises:
        ValueError: If there is no such run.
    """
    from mlflow.exceptions import MlflowException

    try:
        run = find_run(run_id)
    except MlflowException as error:
        if not is_absence(error):
            raise
        raise ValueError(
            f"MLflow has no run {run_id!r}. Was MLFLOW_TRACKING_URI another one when the model was trained? "
            "Point it there, or train again."
        ) from error
    inputs = run.inputs.dataset_inputs if run.inputs else []
    digests = [item.dataset.digest for item in inputs]
    return {
        "run_id": run.info.run_id,
        "status": run.info.status,
        "tags": dict(run.data.tags),
        "dataset_digests": digests,
    }
