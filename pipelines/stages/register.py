"""The stage `register`: finished models become versions of one registered model, jobs become its aliases.

A downstream team asks for the best model for a job, `models:/digits@generation`, not for a family.
An alias moves only when the challenger beats its holder beyond the bootstrap interval, on the same
data and by the same yardstick; either way the record says why.
"""

from __future__ import annotations

import ast
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from pipelines import artifact, tracking
from pipelines.evaluation.leaderboard import JOBS
from pipelines.evaluation.metric import Metric
from pipelines.tracking import Version

PACKAGE = "fivefold_models"
"""Name of the families' package inside a registered model."""

Jobs = Mapping[str, Sequence[str]]
"""By job, the metrics that decide it, the first that a model has."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """How a version does at one job.

    Arguments:
        family: Its family.
        number: Of the version.
        metric: Name of the metric that decides the job.
        score: Its value and interval.
        data_digest: The data it was trained and measured on.
        yardstick_digest: What it was measured with.
    """

    family: str
    number: int
    metric: str
    score: Metric
    data_digest: str
    yardstick_digest: str

    def beats(self, other: Standing) -> bool:
        """Whether the difference exceeds both bootstrap intervals."""
        reversed_score = replace(other.score, better="higher" if self.score.better == "lower" else "lower")
        return self.score.beats(other.score) and reversed_score.beats(self.score)

    def __str__(self) -> str:
        low, high = self.score.low, self.score.high
        interval = "" if low is None or high is None else f" [{low:.4g}, {high:.4g}]"
        return f"{self.family} (version {self.number}) with {self.metric} {self.score.value:.4g}{interval}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """Which version holds an alias, and why.

    Arguments:
        holder: The version that holds it now; `None` for none.
        moved: Whether that is a change.
        why: One sentence.
    """

    holder: Standing | None
    moved: bool
    why: str


def register(
    dataset: str,
    families: Sequence[str],
    *,
    root: str | Path = ".",
    jobs: Jobs | None = None,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Register the finished model of every family, and give every job to the best.

    Running it again registers nothing twice.

    Arguments:
        dataset: Name of the dataset, and of the registered model.
        families: The families to be found in `runs/<dataset>/models` and `results`.
        root: The project's root.
        jobs: By job, the metrics that decide it; by default the table of `evaluate`.
        say: Where each job's decision is printed.
    Returns:
        What is written to `runs/<dataset>/registry.json`: the versions, and by job the alias' holder.
    Raises:
        ValueError: If a model or its results are missing or altered.
        ConnectionError: If MLflow is away; what was registered before stays.
    """
    root = Path(root)
    jobs = job_table() if jobs is None else jobs
    tracking.connect()
    tracking.replay(root / "runs" / dataset / "state")
    found = {family: _finished(root, dataset, family) for family in families}
    _require_one(found, "data_digest")
    _require_one(found, "yardstick_digest")
    with _vendored() as package:
        registered = {
            family: _publish(root, dataset, family, facts, results, package)
            for family, (facts, results) in found.items()
        }
    record: dict[str, Any] = {"model": dataset, "versions": {}, "jobs": {}}
    for family, version in registered.items():
        keys = ("model_digest", "code_digest", "data_digest", "run_id", "git_commit", "git_dirty")
        record["versions"][family] = {"version": version.number} | {key: version.tags.get(key, "") for key in keys}
    for job, metrics in jobs.items():
        record["jobs"][job] = decision = _assign(dataset, job, metrics, registered)
        say(f"{decision['alias']} {'moved' if decision['moved'] else 'stays'}: {decision['why']}")
    text = json.dumps(record, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    artifact.write_atomically(root / "runs" / dataset / "registry.json", text)
    return record


def job_table() -> Jobs:
    """The jobs of `evaluate`, each with the metrics that decide it."""
    return {name: job.metrics for name, job in JOBS.items()}


# Versions


def _finished(root: Path, dataset: str, family: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Facts and results of a finished model, checked against each other."""
    folder = root / "runs" / dataset / "models" / family
    facts, _ = artifact.read(folder)
    path = root / "runs" / dataset / "results" / f"{family}.json"
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"There are no results in {path}. Run `fivefold evaluate --family {family}`."
        ) from error
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}). Run `fivefold evaluate --family {family}` again.") from error
    if results.get("data_digest") != facts.get("data_digest"):
        raise ValueError(
            f"{path} was measured on data {str(results.get('data_digest'))[:12]}, the model in {folder} was trained on "
            f"{str(facts.get('data_digest'))[:12]}. Run `fivefold evaluate --family {family}` again."
        )
    return facts, results


def _require_one(found: Mapping[str, tuple[dict[str, Any], dict[str, Any]]], key: str) -> None:
    """All results must be measured alike, or they cannot be compared."""
    values = {family: str(results.get(key, ""))[:12] for family, (_, results) in found.items()}
    if len(set(values.values())) > 1:
        listed = ", ".join(f"{family} {value}" for family, value in values.items())
        raise ValueError(f"The results differ in {key} ({listed}). Run `fivefold evaluate` again for all of them.")


def _publish(
    root: Path, dataset: str, family: str, facts: Mapping[str, Any], results: Mapping[str, Any], package: Path
) -> Version:
    folder = root / "runs" / dataset / "models" / family
    run_id = str(facts["run_id"])
    run = tracking.run_record(run_id)
    origin = {key: run["tags"][key] for key in ("git_commit", "git_dirty") if key in run["tags"]}
    tags = {
        "family": family,
        "model_digest": artifact.model_digest(folder),
        "code_digest": code_digest(family, package),
        "data_digest": str(facts["data_digest"]),
        "yardstick_digest": str(results.get("yardstick_digest", "")),
        "run_id": run_id,
        "parameters": str(facts.get("parameters", "")),
        **_hash_tag("params_sha256", root / "params.yaml"),
        **_hash_tag("dvc_lock_sha256", root / "dvc.lock"),
        **(origin or tracking.code_version(root)),
        **_metric_tags(results),
    }
    version, _ = tracking.publish(
        name=dataset,
        family=family,
        run_id=run_id,
        served={"model": folder, "package": package},
        tags=tags,
        metrics={key: value for key, value in tracking.evaluation_metrics(results).items() if key.count(".") == 1},
    )
    return version


def _hash_tag(name: str, path: Path) -> dict[str, str]:
    return {name: artifact.sha256(path)} if path.exists() else {}


def _metric_tags(results: Mapping[str, Any]) -> dict[str, str]:
    """`metric.<name>` with the whole number as JSON: what a later challenger is compared with."""
    return {f"metric.{name}": json.dumps(entry, sort_keys=True) for name, entry in results["metrics"].items()}


@contextmanager
def _vendored() -> Iterator[Path]:
    """The families' code as it travels: a copy of `models`, under a name of its own, with `artifact`."""
    import models

    with tempfile.TemporaryDirectory() as temporary:
        package = Path(temporary) / PACKAGE
        source = Path(str(models.__file__)).parent
        shutil.copytree(source, package, ignore=shutil.ignore_patterns("__pycache__", ".*"))
        shutil.copy(artifact.__file__, package / "artifact.py")
        yield package


def code_digest(family: str, package: Path) -> str:
    """SHA-256 over the code that a family is made of, comments and layout aside.

    A change in another family's file leaves it as it is.

    Arguments:
        family: Name in the table of families.
        package: The folder of the families' code.
    """
    from models import FAMILIES

    start = FAMILIES[family].__module__.split(".")[1:]
    files = _imported(package, start)
    texts = {str(path.relative_to(package)): ast.dump(ast.parse(path.read_bytes())) for path in files}
    texts["served_model.py"] = ast.dump(ast.parse(Path(__file__).with_name("served_model.py").read_bytes()))
    return hashlib.sha256(artifact.canonical(texts)).hexdigest()


def _imported(package: Path, start: Sequence[str]) -> set[Path]:
    """Files of a package that one of its modules needs, by its relative imports."""
    seen: set[Path] = set()
    waiting = [list(start), ["artifact"]]
    while waiting:
        module = waiting.pop()
        path = package.joinpath(*module).with_suffix(".py")
        here = module[:-1]
        if not path.exists():
            path, here = package.joinpath(*module, "__init__.py"), module
        if path in seen or not path.exists() or not module:
            continue
        seen.add(path)
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.ImportFrom) and node.level:
                base = here[: len(here) - (node.level - 1)] + (node.module.split(".") if node.module else [])
                waiting += [base, *([*base, name.name] for name in node.names)]
    return seen


# Aliases


def _assign(name: str, job: str, metrics: Sequence[str], registered: Mapping[str, Version]) -> dict[str, Any]:
    """Decide one job, move its alias if need be, and say so."""
    holder_number = tracking.aliases(name).get(job)
    candidates = [standing for version in registered.values() if (standing := standing_of(version, metrics))]
    holder, gone = None, ""
    if holder_number is not None:
        known = {version.number: version for version in tracking.versions(name)}
        version = known.get(holder_number)
        holder = standing_of(version, metrics) if version else None
        gone = _why_gone(version, holder, holder_number, registered)
    decision = decide(candidates, holder, gone)
    if decision.moved:
        tracking.set_alias(name, job, decision.holder.number if decision.holder else None)
    entry: dict[str, Any] = {"alias": f"models:/{name}@{job}", "moved": decision.moved, "why": decision.why}
    if decision.holder is not None:
        held = decision.holder
        entry |= {"family": held.family, "version": held.number, "metric": held.metric}
        entry |= {"value": held.score.value, "interval": [held.score.low, held.score.high], "unit": held.score.unit}
    return entry


def _why_gone(version: Version | None, holder: Standing | None, number: int, registered: Mapping[str, Version]) -> str:
    """Why a holder can no longer be compared; empty when it can."""
    if version is None:
        return f"version {number}, which held it, no longer exists"
    family = version.tags.get("family", "?")
    if family not in registered:
        return f"{family} (version {number}), which held it, is no longer among the families"
    if holder is None:
        return f"{family} (version {number}), which held it, was not measured for this job"
    now = next(iter(registered.values())).tags
    if holder.data_digest != now["data_digest"]:
        return f"{holder} held it for other data ({holder.data_digest[:12]}, now {now['data_digest'][:12]})"
    if holder.yardstick_digest != now["yardstick_digest"]:
        return f"{holder} held it by another yardstick ({holder.yardstick_digest[:12] or 'unknown'})"
    return ""


def standing_of(version: Version, metrics: Sequence[str]) -> Standing | None:
    """How a version does by the first of some metrics that it has; `None` when it has none."""
    for name in metrics:
        if text := version.tags.get(f"metric.{name}"):
            return Standing(
                family=version.tags.get("family", "?"),
                number=version.number,
                metric=name,
                score=_score(json.loads(text)),
                data_digest=version.tags.get("data_digest", ""),
                yardstick_digest=version.tags.get("yardstick_digest", ""),
            )
    return None


def _score(entry: Mapping[str, Any]) -> Metric:
    return Metric(**{name.name: entry[name.name] for name in fields(Metric) if name.name in entry})


def decide(candidates: Sequence[Standing], holder: Standing | None, gone: str = "") -> Decision:
    """Which version a job belongs to.

    Arguments:
        candidates: The families' present versions that can do the job.
        holder: The version that holds it.
        gone: Why the holder no longer counts; empty when it does.
    """
    ranked = sorted(candidates, key=lambda c: c.score.value if c.score.better == "lower" else -c.score.value)
    best = ranked[0] if ranked else None
    if holder is None or gone:
        reason = f"{gone}: " if gone else ""
        if best is None:
            return Decision(holder=None, moved=bool(gone), why=f"{reason}no family can do it.")
        return Decision(holder=best, moved=True, why=f"{reason}{best} is the best of {len(ranked)}.")
    if best is None or best.number == holder.number:
        return Decision(holder=holder, moved=False, why=f"{holder} holds it and is the best.")
    winners = [candidate for candidate in ranked if candidate.beats(holder)]
    if winners:
        return Decision(holder=winners[0], moved=True, why=f"{winners[0]} beats {holder} beyond their intervals.")
    return Decision(holder=holder, moved=False, why=f"{best} does not beat {holder} beyond their intervals.")


# Lineage


@dataclass(frozen=True, kw_only=True, slots=True)
class Link:
    """One link of the chain from an alias back to raw data.

    Arguments:
        name: What is checked.
        what: What was found.
        fault: What is wrong; empty when it holds.
    """

    name: str
    what: str
    fault: str = ""


def verify(dataset: str, alias: str, *, root: str | Path = ".", say: Callable[[str], None] = print) -> list[Link]:
    """Check the chain from an alias back to raw data, and print it.

    Alias, version, files of the model by hash, run, data digest, prepared data by hash, source by hash.

    Arguments:
        dataset: Name of the registered model.
        alias: A job, `generation` say.
        root: The project's root.
        say: Where each link is printed.
    Returns:
        The links, all of which hold.
    Raises:
        ValueError: If a link does not hold, naming it.
        ConnectionError: If MLflow is away.
    """
    tracking.connect()
    number = tracking.aliases(dataset).get(alias)
    if number is None:
        known = ", ".join(sorted(tracking.aliases(dataset))) or "none"
        raise ValueError(f"models:/{dataset}@{alias} does not exist; aliases of {dataset}: {known}.")
    version = next(version for version in tracking.versions(dataset) if version.number == number)
    links = [Link(name="alias", what=f"models:/{dataset}@{alias} is version {number} ({version.tags.get('family')})")]
    links += [_model_link(version), _run_link(version), *_data_links(version, Path(root), dataset)]
    for link in links:
        say(f"{'ok ' if not link.fault else 'BAD'} {link.name:9} {link.what}{f': {link.fault}' if link.fault else ''}")
    faults = [f"{link.name}: {link.what}: {link.fault}" for link in links if link.fault]
    if faults:
        raise ValueError(f"The lineage of models:/{dataset}@{alias} is broken. {' '.join(faults)}")
    return links


def _model_link(version: Version) -> Link:
    expected = version.tags.get("model_digest", "")
    what = f"model digest {expected[:12]}"
    with tempfile.TemporaryDirectory() as temporary:
        try:
            folder = tracking.download(version, temporary)
            weights = next(folder.glob(f"artifacts/*/{artifact.WEIGHTS}"))
            found = artifact.model_digest(weights.parent)
        except StopIteration:
            return Link(name="model", what=what, fault="the registered files hold no weights")
        except (ValueError, OSError) as error:
            return Link(name="model", what=what, fault=str(error))
    return Link(name="model", what=what, fault="" if found == expected else f"the registered files have {found[:12]}.")


def _run_link(version: Version) -> Link:
    what = f"run {version.run_id}"
    try:
        run = tracking.run_record(version.run_id)
    except ValueError as error:
        return Link(name="run", what=what, fault=str(error))
    commit = run["tags"].get("git_commit", "unknown")[:12]
    what += f", {run['status'].lower()}, code {commit}{' (changed)' if run['tags'].get('git_dirty') == 'true' else ''}"
    digest = version.tags.get("data_digest", "")
    if digest[:36] not in run["dataset_digests"]:
        return Link(name="run", what=what, fault=f"it was not given data {digest[:12]}.")
    return Link(name="run", what=what)


def _data_links(version: Version, root: Path, dataset: str) -> Iterator[Link]:
    from data.cards import load_card
    from data.shards import Dataset

    digest = version.tags.get("data_digest", "")
    folder = root / "data" / "prepared" / dataset
    try:
        prepared = Dataset.open(folder)
        prepared.verify()
        other = "" if prepared.digest == digest else f"{folder} now holds data {prepared.digest[:12]}."
        yield Link(name="data", what=f"prepared data {digest[:12]}, every shard checked", fault=other)
        source = prepared.manifest["source"]
        stated = str(source.get("sha256", ""))
        card = load_card(dataset, root).source
        fault = "" if card.sha256 in ("", stated) else f"the card of {dataset} says SHA-256 {card.sha256[:12]}."
        path = root / card.path if card.path else None
        if not fault and path is not None and path.is_file() and artifact.sha256(path) != stated:
            fault = f"{path} has changed since."
        where = source.get("path") or source.get("url") or source.get("builtin") or "source"
        yield Link(name="source", what=f"{where}, SHA-256 {stated[:12]}", fault=fault)
    except (ValueError, OSError) as error:
        yield Link(name="data", what=f"prepared data {digest[:12]}", fault=str(error))
