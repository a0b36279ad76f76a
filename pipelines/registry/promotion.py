"""Which version each alias belongs to: it moves only to one that is better beyond the intervals.

Nor does it move to one that is worse than the classical baseline, or that copies training rows: an alias that nobody
may have stays where it is, or empty.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from pipelines import tracking
from pipelines.evaluation.metrics.base import Metric
from pipelines.evaluation.use_cases import USE_CASES
from pipelines.tracking import AliasRecord, Version

Jobs = Mapping[str, Sequence[str]]
"""By job, the metrics that decide it, the first that a model has."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """How a version does at one job.

    Arguments:
        family: Its family.
        number: Of the version.
        metric: Name of the metric that decides the job.
        score: Its value and interval.
        data_digest: The data it was trained and measured on.
        yardstick_digest: What it was measured with.
        guards: By name, metrics in which it may not be worse than the holder it would replace.
        floors: By name, metrics in which it may not be worse than both real rows and the classical baseline.
        model: Digests of the model and its code; versions with other jobs share them.
        withdrawn: Whether the alias was rolled back from this model.
    """

    family: str
    number: int
    metric: str
    score: Metric
    data_digest: str
    yardstick_digest: str
    guards: Mapping[str, Metric] = field(default_factory=dict)
    floors: Mapping[str, Metric] = field(default_factory=dict)
    model: tuple[str, str] = ("", "")
    withdrawn: bool = False

    def is_same_model(self, other: Candidate) -> bool:
        """Whether another version is the same model, perhaps with another job."""
        return self.number == other.number or (any(self.model) and self.model == other.model)

    def beats(self, other: Candidate) -> bool:
        """Whether the difference exceeds both bootstrap intervals."""
        return _beats(self.score, other.score)

    def failed_guards(self, holder: Candidate) -> list[str]:
        """Guards by which the holder is better beyond both intervals."""
        both = [name for name in self.guards if name in holder.guards]
        return [name for name in both if _beats(holder.guards[name], self.guards[name])]

    def shortfall(self) -> str:
        """Why it may not take an alias, whoever holds it; empty when it may."""
        if self.withdrawn:
            return "was rolled back from"
        classical = self.score.baseline
        if classical is not None and _at(self.score, classical).beats(self.score):
            return f"is worse than the classical baseline ({classical:.4g})"
        for name, metric in self.floors.items():
            bounds = [bound for bound in (metric.floor, metric.baseline) if bound is not None]
            if bounds and all(_at(metric, bound).beats(metric) for bound in bounds):
                return f"is worse in {name} ({metric.value:.4g}) than real rows and the classical baseline"
        return ""

    def __str__(self) -> str:
        low, high = self.score.low, self.score.high
        interval = "" if low is None or high is None else f" [{low:.4g}, {high:.4g}]"
        return f"{self.family} (version {self.number}) with {self.metric} {self.score.value:.4g}{interval}"


def _beats(one: Metric, other: Metric) -> bool:
    """Whether one number is better than another beyond the intervals of both."""
    reversed_other = replace(other, better="higher" if one.better == "lower" else "lower")
    return one.beats(other) and reversed_other.beats(one)


def _at(metric: Metric, value: float) -> Metric:
    """The same metric at another value, known exactly."""
    return replace(metric, value=value, low=None, high=None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """Which version holds an alias, and why.

    Arguments:
        holder: The version that holds it now; `None` for none.
        moved: Whether that is a change.
        why: One sentence.
    """

    holder: Candidate | None
    moved: bool
    why: str


def job_table() -> Jobs:
    """The jobs of `evaluate`, each with the metrics that decide it."""
    return {name: job.metrics for name, job in USE_CASES.items()}


def assign_alias(
    name: str,
    job: str,
    metrics: Sequence[str],
    registered: Mapping[str, Version],
    with_job: Callable[[str, str], Version],
) -> tuple[dict[str, Any], AliasRecord | None]:
    """Decide one job.

    Arguments:
        name: Of the registered model.
        job: Also the alias.
        metrics: Those that decide the job, the first that a model has.
        registered: The families' present versions.
        with_job: Of a family and a job, the version of the family's model that does this job unasked.
    Returns:
        What the stage says of it, and the alias' new record; `None` if that does not change.
    """
    record = tracking.alias_records(name).get(job, AliasRecord())
    candidates = [
        standing
        for version in registered.values()
        if (standing := candidate_of(version, metrics, job, withdrawn=record.withdrawn))
    ]
    holder, gone, version = None, "", None
    if record.holder is not None:
        version = next((version for version in tracking.versions(name) if version.number == record.holder), None)
        version = tracking.with_record(version) if version else None
        holder = candidate_of(version, metrics, job) if version else None
        gone = _incomparable_reason(version, holder, record.holder, registered)
    decision = decide(candidates, holder, gone)
    if record.pinned:
        decision = Decision(holder=holder, moved=False, why=f"pinned {record.pinned}. Unpinned: {decision.why}")
    held = decision.holder
    same = [registered[one.family] for one in candidates if held is not None and held.is_same_model(one)]
    expected = {"job": job, "held_out_digest": same[0].tags.get("held_out_digest", "")} if same else {}
    outdated = version is not None and any(version.tags.get(key, "") != value for key, value in expected.items())
    if held is not None and (decision.moved or (outdated and not record.pinned)):
        held = replace(held, number=with_job(held.family, job).number)
        news = record.moved(held.number, decision.why)
    elif decision.moved:
        news = record.moved(None, decision.why)
    else:
        news = replace(record, why=decision.why) if record.holder is None else None
    entry: dict[str, Any] = {"alias": f"models:/{name}@{job}", "moved": decision.moved, "why": decision.why}
    if record.pinned:
        entry["pinned"] = record.pinned
    if held is not None:
        entry |= {"family": held.family, "version": held.number, "metric": held.metric}
        entry |= {"value": held.score.value, "interval": [held.score.low, held.score.high], "unit": held.score.unit}
        entry["model_digest"] = held.model[0]
    return entry, news


def _incomparable_reason(
    version: Version | None, holder: Candidate | None, number: int, registered: Mapping[str, Version]
) -> str:
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
    if "files_digest" not in version.tags:
        return f"{holder} was registered without a digest of its files"
    if holder.yardstick_digest != now["yardstick_digest"]:
        return f"{holder} held it by another yardstick ({holder.yardstick_digest[:12] or 'unknown'})"
    return ""


def candidate_of(
    version: Version, metrics: Sequence[str], job: str = "", *, withdrawn: Collection[str] = ()
) -> Candidate | None:
    """How a version does by the first of some metrics that it has; `None` when it has none.

    Arguments:
        version: With its record.
        metrics: Those that decide the job.
        job: Whose guards and floors are read along.
        withdrawn: Models that the job's alias was rolled back from (see `tracking.model_key`).
    """
    use = USE_CASES.get(job)
    guards, floors = (
        {name: _score(entry) for name in names if (entry := _measured(version, name))}
        for names in ((use.guards, use.floors) if use else ((), ()))
    )
    for name in metrics:
        if entry := _measured(version, name):
            return Candidate(
                family=version.tags.get("family", "?"),
                number=version.number,
                metric=name,
                score=_score(entry),
                data_digest=version.tags.get("data_digest", ""),
                yardstick_digest=version.tags.get("yardstick_digest", ""),
                guards=guards,
                floors=floors,
                model=(version.tags.get("model_digest", ""), version.tags.get("code_digest", "")),
                withdrawn=tracking.model_key(version.tags) in withdrawn,
            )
    return None


def _measured(version: Version, name: str) -> Mapping[str, Any] | None:
    """A metric of a version: of its record, or of a tag where it was registered before there were records."""
    text = version.tags.get(f"metric.{name}")
    return version.record.get("metrics", {}).get(name) or (json.loads(text) if text else None)


def _score(entry: Mapping[str, Any]) -> Metric:
    return Metric(**{name.name: entry[name.name] for name in fields(Metric) if name.name in entry})


def decide(candidates: Sequence[Candidate], holder: Candidate | None, gone: str = "") -> Decision:
    """Which version a job belongs to.

    Arguments:
        candidates: The families' present versions that can do the job.
        holder: The version that holds it.
        gone: Why the holder no longer counts; empty when it does.
    """
    ranked = sorted(candidates, key=lambda c: c.score.value if c.score.better == "lower" else -c.score.value)
    best = ranked[0] if ranked else None
    able = [candidate for candidate in ranked if not candidate.shortfall()]
    if holder is None or gone:
        reason = f"{gone}: " if gone else ""
        if best is None:
            return Decision(holder=None, moved=bool(gone), why=f"{reason}no family can do it.")
        if not able:
            return Decision(holder=holder, moved=False, why=f"{reason}nobody may have it: {_told(ranked)}.")
        passed = f", but {_told(ranked[: ranked.index(able[0])])}" if able[0] is not best else ""
        return Decision(holder=able[0], moved=True, why=f"{reason}{able[0]} is the best of {len(ranked)}{passed}.")
    if best is None or best.is_same_model(holder):
        return Decision(holder=holder, moved=False, why=f"{holder} holds it and is the best.")
    winners = [candidate for candidate in ranked if candidate.beats(holder)]
    refused = {candidate.number: failed for candidate in winners if (failed := candidate.failed_guards(holder))}
    winners_left = [candidate for candidate in winners if candidate in able and candidate.number not in refused]
    if winners_left:
        why = f"{winners_left[0]} beats {holder} beyond their intervals."
        return Decision(holder=winners_left[0], moved=True, why=why)
    if winners:
        failed = refused.get(winners[0].number)
        but = f"is worse in {', '.join(failed)}" if failed else winners[0].shortfall()
        return Decision(holder=holder, moved=False, why=f"{winners[0]} beats {holder}, but {but}.")
    return Decision(holder=holder, moved=False, why=f"{best} does not beat {holder} beyond their intervals.")


def _told(refused: Sequence[Candidate]) -> str:
    return "; ".join(f"{candidate} {candidate.shortfall()}" for candidate in refused)
