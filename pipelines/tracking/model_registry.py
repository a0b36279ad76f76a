"""Evaluations and the model registry."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.serving.entry import vouched
from pipelines.tracking import turns, vouching
from pipelines.tracking.alias_records import alias_records
from pipelines.tracking.runs import MOST_METRICS
from pipelines.tracking.server import allowed, answered, connect, find_run, get_client, is_absence, reason

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.pyfunc import PyFuncModel
    from mlflow.types import Schema


FIXED = ("git_commit", "git_dirty", "run_id", "job", "held_out_digest", "params_sha256", "dvc_lock_sha256")
"""What says how a version came to be and what its files hold: never changed later."""


@answered
def log_evaluation(run_id: str, results: Mapping[str, Any], pictures: Mapping[str, str | Path] | None = None) -> None:
    """Put a model's results on the run that trained it; said twice, they are there once.

    Of two evaluations of a run at once the later ends what is seen, whole.

    Arguments:
        run_id: The training's run.
        results: What `evaluate` writes. Numbers that decide a job become metrics `evaluate.<name>`, by which runs can
            be sorted; all numbers are one table, `evaluation/metrics.json`, a row each with interval, floor and
            baseline; all of it is the file `evaluation/results.json`.
        pictures: Files by name, kept beside it.
    Raises:
        ConnectionError: If the server is away.
        ValueError: If there is no such run.
    """
    from mlflow.exceptions import MlflowException

    connect()
    try:
        run_id = find_run(run_id).info.run_id
    except MlflowException as error:
        if not is_absence(error):
            raise
        raise ValueError(
            f"MLflow has no run {run_id!r}, in which the {results.get('family')} was trained ({reason(error)}). "
            "Was MLFLOW_TRACKING_URI another one then? Point it there, or train again."
        ) from error
    with turns.taking_turn(run_id, "evaluate"):
        _log_evaluation(get_client(), run_id, results, pictures or {})


def _log_evaluation(
    client: MlflowClient, run_id: str, results: Mapping[str, Any], pictures: Mapping[str, str | Path]
) -> None:
    from mlflow.entities import Metric

    run = client.get_run(run_id)
    there = {metric.key: metric for metric in run.data._metric_objs}
    # MLflow shows the point of the latest time, which another machine's clock may have set ahead of ours
    moment = max(int(1000 * time.time()), *(1 + metric.timestamp for metric in there.values()), 0)
    metrics = [
        Metric(key, value, moment, 0)
        for key, value in evaluation_metrics(results).items()
        if key not in there or there[key].value != value
    ]
    for start in range(0, len(metrics), MOST_METRICS):
        client.log_batch(run_id, metrics=metrics[start : start + MOST_METRICS])
    client.log_dict(run_id, evaluation_table(results), TABLE)
    tables = json.loads(run.data.tags.get(TABLES_TAG) or "[]")
    if (entry := {"path": TABLE, "type": "table"}) not in tables:
        client.set_tag(run_id, TABLES_TAG, json.dumps([*tables, entry]))
    client.log_dict(run_id, dict(results), "evaluation/results.json")
    for name, path in pictures.items():
        with tempfile.TemporaryDirectory() as temporary:
            copy = Path(temporary) / f"{allowed(name)}{Path(path).suffix}"
            copy.write_bytes(Path(path).read_bytes())
            client.log_artifact(run_id, str(copy), "evaluation")


TABLE = "evaluation/metrics.json"
"""The table of a run's evaluation, as `mlflow.log_table` would write it (which adds rows at each call)."""
TABLES_TAG = "mlflow.loggedArtifacts"
"""Tag of a run by which MLflow's pages find its tables."""


def evaluation_metrics(results: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a results file that decide a job, or guard it, as flat metrics."""
    from pipelines.evaluation.use_cases import USE_CASES

    flat: dict[str, float] = {}
    for use in USE_CASES.values():
        for name in (*use.metrics, *use.guards, *use.floors):
            number = _entry(results.get("metrics", {}).get(name)).get("value")
            if isinstance(number, Real) and not isinstance(number, bool):
                flat[allowed(f"evaluate.{name}")] = float(number)
    return flat


def evaluation_table(results: Mapping[str, Any]) -> dict[str, list]:
    """All numbers of a results file, a row each; MLflow's pages show it as a table, and beside other runs'."""
    columns = ["metric", "value", "low", "high", "floor", "baseline", "unit", "better"]
    rows = [
        [name, *(_entry(entry).get(column) for column in columns[1:])]
        for name, entry in sorted(results.get("metrics", {}).items())
    ]
    rows += [
        [f"seconds.{name}", seconds, None, None, None, None, "s", "lower"]
        for name, seconds in sorted(results.get("seconds", {}).items())
    ]
    return {"columns": columns, "data": rows}


def _entry(entry: Any) -> Mapping[str, Any]:
    return entry if isinstance(entry, Mapping) else {"value": entry}


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
        found += [_version(item) for item in page]
        token = page.token
        if not token:
            return sorted(found, key=lambda version: version.number)


def _version(item: ModelVersion) -> Version:
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
    return replace(_version(item), record=stated), True


MODEL = ("model_digest", "code_digest")
"""Tags that say which model a version is, whatever its job."""

FILES = ("job", "held_out_digest")
"""Tags that say what a version's files hold besides its model."""

RECORDS = "registry"
"""The folder of a run in which records lie."""


def _record_path(tags: Mapping[str, str]) -> str:
    return f"{RECORDS}/" + "-".join(tags.get(key, "")[:16] for key in MODEL) + ".json"


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
    known = _read_record(client, run_id, tags) if before else {}
    stated = {**known, **{key: value for key, value in record.items() if not (before and key in FIXED)}}
    if stated != known:
        client.log_dict(run_id, stated, _record_path(tags))
    return stated


def _read_record(client: MlflowClient, run_id: str, tags: Mapping[str, str]) -> dict[str, Any]:
    """A model's record beside a run; empty if there is none, an error if that cannot be told."""
    from mlflow.artifacts import load_dict
    from mlflow.exceptions import MlflowException

    path = _record_path(tags)
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
    return replace(version, record=_read_record(get_client(), version.run_id, version.tags))


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


VERSIONS_TAG = "mlflow.modelVersions"
"""Tag of a logged model that MLflow's pages read."""


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


def save_served(
    folder: str | Path,
    *,
    model: str | Path,
    package: str | Path,
    run_id: str,
    model_id: str,
    about: Mapping[str, Any] | None = None,
) -> None:
    """Write an MLflow model folder that needs only mlflow, torch, safetensors and numpy, and holds no pickle.

    Arguments:
        folder: Where.
        model: The finished model's folder.
        package: The families' code, a folder named `fivefold_models`.
        run_id: The run that trained it.
        model_id: Id of the logged model.
        about: What the version knows of itself: `job`, `label` (name of the label's column), `held_out_scores`,
            and whatever else is worth knowing.
    """
    from importlib.metadata import version

    import mlflow
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ParamSchema, ParamSpec

    from data import formats
    from pipelines.serving import artifact, signature
    from pipelines.serving.params import PARAMS

    facts, _ = artifact.read(model)
    about = dict(about or {})
    described = signature.describe(facts, about, formats)
    defaults = {name: default for name, (_, default) in PARAMS.items()} | {"task": described.task}
    params = ParamSchema([ParamSpec(name, kind, defaults[name]) for name, (kind, _) in PARAMS.items()])
    needs = [f"{name}=={version(name).split('+')[0]}" for name in ("mlflow", "torch", "safetensors", "numpy")]
    with _without_advice(), tempfile.TemporaryDirectory() as temporary:
        (Path(temporary) / VERSION_FILE).write_text(
            json.dumps(about, indent=1, sort_keys=True) + "\n", encoding="utf-8"
        )
        mlflow.pyfunc.save_model(
            str(folder),
            python_model=str(vouching.staged(Path(package), Path(temporary)) / vouching.SERVED),
            artifacts={"model": str(Path(model).absolute()), "version": str(Path(temporary) / VERSION_FILE)},
            code_paths=[str(package)],
            signature=ModelSignature(_schema(described.inputs), _schema(described.outputs), params),
            input_example=(described.example, {"task": described.task}),
            pip_requirements=needs,
            mlflow_model=Model(
                artifact_path=facts["family"], run_id=run_id, model_id=model_id, model_uuid=model_id,
                metadata=described.metadata,
            ),
        )  # fmt: skip
    _forget_origin(Path(folder) / "MLmodel")
    _refuse_pickles(Path(folder))
    vouching.seal(Path(folder))


VERSION_FILE = "version.json"
"""What a version knows of itself, beside the model."""


def _schema(columns: list[tuple[str, str]] | tuple[str, tuple[int, ...]]) -> Schema:
    """MLflow's schema of an array (`dtype`, shape with -1 for the rows) or a table (name and kind of each column)."""
    import numpy as np
    from mlflow.types import ColSpec, Schema, TensorSpec

    if isinstance(columns, list):
        return Schema([ColSpec(kind, name, required=False) for name, kind in columns])
    dtype, shape = columns
    return Schema([TensorSpec(np.dtype(dtype), shape)])


def _forget_origin(described: Path) -> None:
    """Take the trainer's own paths out of `MLmodel`: everything it names lies in its folder."""
    import yaml

    content = yaml.safe_load(described.read_text(encoding="utf-8"))
    flavor = content["flavors"]["python_function"]
    for entry in flavor.get("artifacts", {}).values():
        entry["uri"] = entry["path"]
    flavor["model_code_path"] = Path(flavor["model_code_path"]).name
    described.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


@contextlib.contextmanager
def _without_advice() -> Iterator[None]:
    """Silence MLflow's hints on signatures and input examples, which do not apply here."""
    import warnings

    level = logging.getLogger("mlflow").level
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.getLogger("mlflow").setLevel(level)


def _refuse_pickles(folder: Path) -> None:
    kinds = (".pkl", ".pickle", ".pt", ".pth", ".bin", ".joblib")
    found = [path for path in folder.rglob("*") if path.suffix in kinds]
    assert not found, f"pickled files in a model to be registered: {found}"


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
        return _version(
            client.get_model_version_by_alias(name, alias) if alias else client.get_model_version(name, number)
        )
    except MlflowException as error:
        raise ValueError(
            f"{uri} cannot be loaded: {why_absent(name, alias or '') or reason(error)}. {_REMEDY}"
        ) from error


@dataclass(frozen=True, kw_only=True, slots=True)
class ServedFolder:
    """The parts of a registered model's files, as `save_served` takes them.

    Arguments:
        model: The finished model's folder.
        package: The families' code.
        about: What the version knows of itself.
    """

    model: Path
    package: Path
    about: Mapping[str, Any]


def open_served(folder: str | Path) -> ServedFolder:
    """The parts of a registered model's files.

    Arguments:
        folder: What `download` returned.
    """
    import yaml

    folder = Path(folder)
    flavor = yaml.safe_load((folder / "MLmodel").read_text(encoding="utf-8"))["flavors"]["python_function"]
    artifacts = {name: folder / entry["path"] for name, entry in flavor["artifacts"].items()}
    (package,) = (path for path in (folder / flavor["code"]).iterdir() if path.is_dir() and path.name[0] not in "._")
    about = json.loads(artifacts["version"].read_text(encoding="utf-8")) if "version" in artifacts else {}
    return ServedFolder(model=artifacts["model"], package=package, about=about)


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
            raise ValueError(f"{uri} cannot be loaded: {reason(error)}. {_REMEDY}") from error


_REMEDY = "`fivefold models` lists what can; `fivefold pin` gives an alias to a version that you choose."


def why_absent(name: str, alias: str) -> str:
    """Why nobody holds an alias of a registered model, where `register` said so; empty where it did not."""
    record = alias_records(name).get(alias) if alias else None
    return record.why.rstrip(".") if record is not None and record.holder is None else ""


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
