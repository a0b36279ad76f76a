"""Moving house: everything that one MLflow store knows, into another, a file into a server say.

Runs and logged models get new ids, for MLflow chooses them; the old ones are tags, by which what still names them finds
them (`find_run`). Registered models keep their names, and versions their numbers, so that `models:/digits@density` and
`models:/digits/3` stay what they were. Whoever was killed goes on where it stopped: what is there is not copied twice.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from pipelines.tracking.model_registry import link_version
from pipelines.tracking.outbox import MOST_METRICS, experiment_of
from pipelines.tracking.server import OLD_RUN, answered, connect, get_client, is_absence, moved_from
from pipelines.tracking.turns import LEDGER

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

OLD_MODEL = "migrated.model_id"
"""Tag of a logged model: its id in the store that it comes from."""
DONE = "migrated.whole"
"""Tag of a run or a logged model that is there with all its files."""
PARENT = "mlflow.parentRunId"


@answered
def migrate(origin: str, target: str, say: Callable[[str], None] = print) -> dict[str, int]:
    """Copy every experiment, run, logged model, registered model, version and alias, with all files.

    Nobody should train or register in either meanwhile.

    Arguments:
        origin: URI of the store that there is.
        target: URI of the store to come: a server, or a database.
        say: Told of every experiment and registered model.
    Returns:
        How many `runs`, `models` and `versions` there are now of those that the origin has.
    Raises:
        ConnectionError: If one of them cannot be reached.
        ValueError: If both are the same, or the target has a registered model of its own by the same name.
    """
    import mlflow

    if connect(origin) == connect(target):
        raise ValueError(f"both stores are {target}: name the one to move to with --to.")
    move = _Move(mlflow.MlflowClient(connect(origin), connect(origin)), origin)
    connect(target)
    move.target = get_client()
    move.check(say)
    for experiment in move.origin.search_experiments():
        runs, models = move.experiment(experiment.experiment_id, experiment.name)
        if runs:
            say(f"{experiment.name}: {runs} runs, {models} models")
    versions = move.registered(say)
    return {"runs": len(move.runs), "models": len(move.models), "versions": versions}


class _Move:
    """What goes where.

    Arguments:
        origin: Client of the store that there is.
        uri: That store's.
    """

    target: MlflowClient

    def __init__(self, origin: MlflowClient, uri: str) -> None:
        self.origin, self.uri = origin, uri
        self.runs: dict[str, str] = {}
        self.models: dict[str, str] = {}

    def check(self, say: Callable[[str], None]) -> None:
        """Refuse before anything is copied where names would clash."""
        for model in _pages(self.origin.search_registered_models):
            there = {int(item.version): item for item in _versions(self.target, model.name)}
            ours = {int(item.version): item for item in _versions(self.origin, model.name)}
            for number, item in there.items():
                keys = ("model_digest", "job")
                if number not in ours or any(item.tags.get(k, "") != ours[number].tags.get(k, "") for k in keys):
                    raise ValueError(
                        f"the store to move to has a registered model {model.name!r} of its own: its version {number} "
                        "is another one. Rename one of the two in MLflow, or choose an empty store."
                    )

    def experiment(self, number: str, name: str) -> tuple[int, int]:
        """Copy an experiment's runs and models; how many there were."""
        runs = list(_pages(lambda **page: self.origin.search_runs([number], **page)))
        models = list(_pages(lambda **page: self.origin.search_logged_models([number], **page)))
        if not runs and not models:
            return 0, 0
        there = experiment_of(self.target, name)
        for run in sorted(runs, key=lambda run: (PARENT in run.data.tags, run.data.tags.get("stage") != "register")):
            self.runs[run.info.run_id] = self.run(run, there)
        for model in models:
            self.models[model.model_id] = self.model(model, there)
        for run in runs:
            self.outputs(run)
        return len(runs), len(models)

    def run(self, run: Run, experiment: str) -> str:
        """Copy a run, with its parameters, curves, data and files; its id over there."""
        from mlflow.entities import Metric, Param

        found = self.target.search_runs([experiment], moved_from(run.info.run_id))
        if found and found[0].data.tags.get(DONE):
            return found[0].info.run_id
        tags = {key: value for key, value in run.data.tags.items() if key != DONE}
        tags[OLD_RUN] = f"{tags.get(OLD_RUN, '')} {run.info.run_id}".strip()
        if PARENT in tags:
            tags[PARENT] = self.runs.get(tags[PARENT], tags[PARENT])
        copy = found[0] if found else self.target.create_run(
            experiment, start_time=run.info.start_time, tags=tags, run_name=run.info.run_name
        )  # fmt: skip
        there = copy.info.run_id
        ledgers = {key: self.runs.get(value, value) for key, value in run.data.params.items() if _names_run(key)}
        params = [Param(key, value) for key, value in {**run.data.params, **ledgers}.items()]
        for start in range(0, len(params), 100):
            self.target.log_batch(there, params=params[start : start + 100])
        for key in run.data.metrics:
            points = self.origin.get_metric_history(run.info.run_id, key)
            points = [Metric(point.key, point.value, point.timestamp, point.step) for point in points]
            for start in range(0, len(points), MOST_METRICS):
                self.target.log_batch(there, metrics=points[start : start + MOST_METRICS])
        if run.inputs is not None and run.inputs.dataset_inputs:
            self.target.log_inputs(there, datasets=list(run.inputs.dataset_inputs))
        with tempfile.TemporaryDirectory() as temporary:
            folder = self._fetched(run.info.artifact_uri, temporary)
            if folder is not None and any(folder.iterdir()):
                self.target.log_artifacts(there, str(folder))
        if run.info.status != "RUNNING":
            self.target.set_terminated(there, run.info.status, run.info.end_time)
        self.target.set_tag(there, DONE, "true")
        return there

    def model(self, model: LoggedModel, experiment: str) -> str:
        """Copy a logged model with its files and figures; its id over there."""
        from mlflow.entities import Metric

        source = self.runs.get(model.source_run_id or "", "")
        found = list(
            self.target.search_logged_models([experiment], f"tags.`{OLD_MODEL}` = '{model.model_id}'", max_results=1)
        )
        if found and found[0].tags.get(DONE):
            return found[0].model_id
        tags = {key: value for key, value in model.tags.items() if key not in (DONE, "mlflow.modelVersions")}
        copy = found[0] if found else self.target.create_logged_model(
            experiment, model.name, source or None, {**tags, OLD_MODEL: model.model_id}, dict(model.params) or None,
            model.model_type,
        )  # fmt: skip
        with tempfile.TemporaryDirectory() as temporary:
            folder = self._fetched(model.artifact_location, temporary)
            if folder is not None and any(folder.iterdir()):
                self.target.log_model_artifacts(copy.model_id, str(folder))
        if str(model.status) in ("READY", "FAILED"):
            self.target.finalize_logged_model(copy.model_id, str(model.status))
        points = [
            Metric(m.key, m.value, m.timestamp, m.step, copy.model_id, m.dataset_name, m.dataset_digest)
            for m in model.metrics or ()
        ]
        if points and source:
            self.target.log_batch(source, metrics=points)
        self.target.set_logged_model_tags(copy.model_id, {DONE: "true"})
        return copy.model_id

    def outputs(self, run: Run) -> None:
        """Say which models a run made."""
        from mlflow.entities import LoggedModelOutput

        there = self.runs[run.info.run_id]
        known = self.target.get_run(there).outputs
        said = {output.model_id for output in (known.model_outputs if known else ())}
        made = [
            LoggedModelOutput(self.models[output.model_id], step=output.step)
            for output in (run.outputs.model_outputs if run.outputs else ())
            if output.model_id in self.models and self.models[output.model_id] not in said
        ]
        if made:
            self.target.log_outputs(there, made)

    def registered(self, say: Callable[[str], None]) -> int:
        """Copy registered models, those last whose versions are copies of others'; how many versions there are."""
        models = {model.name: model for model in _pages(self.origin.search_registered_models)}
        versions = {name: _versions(self.origin, name) for name in models}
        copies = {name for name, items in versions.items() if any(_copied(item) for item in items)}
        for name in sorted(models, key=lambda name: (name in copies, name)):
            self.registered_model(models[name], versions[name])
            if versions[name]:
                say(f"models:/{name}: {len(versions[name])} versions, aliases {', '.join(models[name].aliases) or '-'}")
        return sum(map(len, versions.values()))

    def registered_model(self, model: RegisteredModel, versions: list[ModelVersion]) -> None:
        """Copy a registered model, its versions with their numbers, and its aliases."""
        from mlflow.exceptions import MlflowException

        tags = {**model.tags, **{key: self.runs.get(model.tags[key], "") for key in (LEDGER,) if key in model.tags}}
        try:
            self.target.create_registered_model(model.name, tags, model.description)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            for key, value in tags.items():
                self.target.set_registered_model_tag(model.name, key, value)
        there = {int(item.version) for item in _versions(self.target, model.name)}
        latest = max(there, default=0)
        for item in versions:
            number = int(item.version)
            if number in there:
                continue
            source = item.source.removeprefix("models:/")
            if not _copied(item):
                source = self.models.get(source, source)
            named = {key: self.runs.get(value, value) if key == "run_id" else value for key, value in item.tags.items()}
            while (latest := latest + 1) <= number:
                made = self.target.create_model_version(
                    model.name,
                    source=f"models:/{source}",
                    run_id=self.runs.get(item.run_id or "") or None,
                    tags=named,
                    description=item.description,
                    model_id=None if _copied(item) else source,
                )
                if int(made.version) < number:  # of a version that was deleted
                    self.target.delete_model_version(model.name, made.version)
                latest = int(made.version)
            latest = number
            link_version(self.target, model.name, number)
        for alias, number in model.aliases.items():
            self.target.set_registered_model_alias(model.name, alias, str(number))

    def _fetched(self, uri: str, folder: str) -> Path | None:
        """A folder of the origin's files on this disk; `None` if there are none.

        A store in a file notes where its files lay when they were written: where the folder has moved since, they are
        looked for beside the store.
        """
        from mlflow.artifacts import download_artifacts, list_artifacts
        from mlflow.exceptions import MlflowException

        parts = urlsplit(uri)
        if parts.scheme in ("", "file"):
            there = Path(unquote(parts.path))
            if not there.exists() and "/mlruns/" in parts.path and self.uri.startswith("sqlite:///"):
                home = Path(self.uri.removeprefix("sqlite:///")).absolute().parent
                there = home / "mlruns" / unquote(parts.path).rpartition("/mlruns/")[2]
            return there if there.is_dir() else None
        try:
            if not list_artifacts(artifact_uri=uri, tracking_uri=self.uri):  # a bucket takes an empty folder for a file
                return None
            return Path(download_artifacts(artifact_uri=uri, dst_path=folder, tracking_uri=self.uri))
        except MlflowException as error:
            if is_absence(error):
                return None
            raise


def _names_run(key: str) -> bool:
    return key.startswith(f"{LEDGER}.")


def _copied(item: ModelVersion) -> bool:
    """Whether a version is a copy of another registered model's."""
    return "/" in (item.source or "").removeprefix("models:/")


def _versions(client: MlflowClient, name: str) -> list[ModelVersion]:
    items = _pages(lambda **page: client.search_model_versions(f"name = '{name}'", **page))
    return sorted(items, key=lambda item: int(item.version))


def _pages(search: Callable[..., Any]) -> Iterator[Any]:
    token = None
    while True:
        page = search(page_token=token)
        yield from page
        token = page.token
        if not token:
            return
