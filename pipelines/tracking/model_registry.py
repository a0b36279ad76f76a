"""Finished models become versions of a registered model, once each, and stay up to date with later evaluations."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.tracking import turns, vouching
from pipelines.tracking.downloads import check_files
from pipelines.tracking.served_files import save_served
from pipelines.tracking.server import answered, get_client
from pipelines.tracking.versions import MODEL, Version, read_record, record_path, version_of, versions

if TYPE_CHECKING:
    from mlflow import MlflowClient

FIXED = ("git_commit", "git_dirty", "run_id", "job", "held_out_digest", "params_sha256", "dvc_lock_sha256")
"""What says how a version came to be and what its files hold: never changed later."""
FILES = ("job", "held_out_digest")
"""Tags that say what a version's files hold besides its model."""
VERSIONS_TAG = "mlflow.modelVersions"
"""Tag of a logged model that MLflow's pages read."""


@answered
def publish(
    *,
    name: str,
    family: str,
    run_id: str,
    served: Mapping[str, Any],
    tags: Mapping[str, str],
    record: Mapping[str, Any],
    page: Callable[[str], str | None],
    metrics: Mapping[str, float],
) -> tuple[Version, bool]:
    """Make a finished model a version of a registered model, once for each job and each set of held-out scores.

    To be called within `changing`.

    Versions of the same model, which were there before, are brought up to date with it.

    Arguments:
        name: Of the registered model: the dataset.
        family: Name of the logged model.
        run_id: The run that trained it.
        served: Arguments of `save_served` that make the files.
        tags: Of the version; `model_digest`, `code_digest`, `job` and `held_out_digest` are its identity. What vouches
            for files is not taken from them, for other versions have other files.
        record: What else is known of the model; one file of each run that trained it.
        page: Of a job, the page of the version that does it, Markdown; `None` leaves the page that it has.
        metrics: Shown with the model, as already on the run.
    Returns:
        The version, and whether it is new.
    """
    client = get_client()
    tags = {key: value for key, value in tags.items() if key not in vouching.TAGS}
    alike = [version for version in versions(name) if all(version.tags.get(key) == tags[key] for key in MODEL)]
    found = None
    for version in alike:
        stated = _update_record(client, version.run_id, tags, record, before=True)
        superseded = version.tags.get("held_out_digest", "") != tags.get("held_out_digest", "")  # as its page says
        described = None if superseded else page(version.tags.get("job", ""))
        updated = replace(_retag(client, version, tags, described), record=stated)
        link_version(client, version.name, version.number)
        same = all(version.tags.get(key, "") == tags.get(key, "") for key in FILES)
        if same and vouching.complete(name, version.tags):
            found = updated
    if found is not None:
        check_files(found)
        return found, False
    stated = _update_record(client, run_id, tags, record, before=any(version.run_id == run_id for version in alike))
    model_id, vouchers = _logged_model(
        client, name, family, run_id, served, {key: tags.get(key, "") for key in (*MODEL, *FILES)}
    )
    _link_metrics(client, run_id, model_id, metrics, name, tags["data_digest"])
    turns.confirm()
    item = client.create_model_version(
        name,
        source=f"models:/{model_id}",
        run_id=run_id,
        tags={key: value for key, value in tags.items() if value} | vouchers,
        description=page(tags["job"]),
        model_id=model_id,
    )
    link_version(client, name, int(item.version))
    return replace(version_of(item), record=stated), True


def _update_record(
    client: MlflowClient, run_id: str, tags: Mapping[str, str], record: Mapping[str, Any], *, before: bool
) -> dict[str, Any]:
    """Write a model's record beside a run that trained it, unless it is there.

    Arguments:
        client: Of MLflow.
        run_id: The run.
        tags: Of a version of the model.
        record: What is known of the model now.
        before: Whether a version of this run was registered before: how it came to be stays as it is.
    """
    known = read_record(client, run_id, tags) if before else {}
    stated = {**known, **{key: value for key, value in record.items() if not (before and key in FIXED)}}
    if stated != known:
        client.log_dict(run_id, stated, record_path(tags))
    return stated


def _retag(client: MlflowClient, version: Version, tags: Mapping[str, str], description: str | None) -> Version:
    """Bring a version's page up to date with a later evaluation; how it came to be stays as it is."""
    news = {key: value for key, value in tags.items() if key not in FIXED and version.tags.get(key, "") != value}
    for key, value in news.items():
        client.set_model_version_tag(version.name, str(version.number), key, value)
    before = client.get_model_version(version.name, str(version.number)).description
    if description is not None and before != description:
        client.update_model_version(version.name, str(version.number), description)
    return replace(version, tags={**version.tags, **news})


def link_version(client: MlflowClient, name: str, number: int) -> None:
    """Say on the logged model's page which version it became, as `mlflow.register_model` does."""
    model_id = client.get_model_version(name, str(number)).source.removeprefix("models:/")
    if "/" in model_id:  # a copy of a version, or files without a logged model
        return
    said = json.loads(client.get_logged_model(model_id).tags.get(VERSIONS_TAG) or "[]")
    if not any((entry["name"], int(entry["version"])) == (name, number) for entry in said):
        said.append({"name": name, "version": number})
        client.set_logged_model_tags(model_id, {VERSIONS_TAG: json.dumps(said)})


def _logged_model(
    client: MlflowClient, name: str, family: str, run_id: str, served: Mapping[str, Any], tags: Mapping[str, str]
) -> tuple[str, dict[str, str]]:
    """Upload a served model under its run, and what vouches for its files.

    One that a killed stage had uploaded is taken up again.
    """
    from mlflow.entities import LoggedModelOutput

    experiment = client.get_run(run_id).info.experiment_id
    given = {key: value for key, value in tags.items() if value}
    for model in client.search_logged_models([experiment], f"attributes.name = '{family}'"):
        same = model.status == "READY" and all((model.tags.get(key) or "") == value for key, value in tags.items())
        if same and vouching.complete(name, model.tags):
            check_files(Version(name=name, number=0, run_id=run_id, tags=model.tags), f"models:/{model.model_id}")
            return model.model_id, {key: model.tags[key] for key in vouching.TAGS if key in model.tags}
    model = client.create_logged_model(experiment, name=family, source_run_id=run_id, tags=given)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        save_served(folder, run_id=run_id, model_id=model.model_id, **served)
        client.log_model_artifacts(model.model_id, str(folder))
        vouchers = vouching.vouchers(name, folder)
    client.set_logged_model_tags(model.model_id, vouchers)
    client.finalize_logged_model(model.model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    return model.model_id, vouchers


def _link_metrics(
    client: MlflowClient, run_id: str, model_id: str, metrics: Mapping[str, float], dataset: str, data_digest: str
) -> None:
    """Tie the run's last values of some metrics to the model and its data, without adding points."""
    from mlflow.entities import Metric

    last = {metric.key: metric for metric in client.get_run(run_id).data._metric_objs}
    known = {metric.key for metric in client.get_logged_model(model_id).metrics or ()}
    source = {"model_id": model_id, "dataset_name": dataset, "dataset_digest": data_digest[:36]}
    now = int(1000 * time.time())
    batch = []
    for key, value in metrics.items():
        same = last.get(key)
        if key not in known and same is not None and same.value == value:
            batch.append(Metric(key, value, same.timestamp, same.step, **source))
        elif key not in known:
            batch.append(Metric(key, value, now, 0, **source))
    if batch:
        client.log_batch(run_id, metrics=batch)
