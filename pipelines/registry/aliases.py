"""What a person decides about an alias: pin it to a version, let it go, roll it back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines import tracking
from pipelines.evaluation.use_cases import USE_CASES
from pipelines.registry.package import with_job

if TYPE_CHECKING:
    from pipelines.tracking import AliasRecord, Version


def pin(name: str, job: str, number: int, *, root: str | Path = ".", say: Callable[[str], None] = print) -> Version:
    """Give an alias to a version and keep it there, whatever `register` finds, until `unpin` or another `pin`.

    A version that has another job, or none, stays as it is: the alias gets a version of the same model that does this
    job, made from the registered files where there is none yet.

    Arguments:
        name: Of the registered model.
        job: The alias.
        number: Of the version.
        root: The project's root: what the page says of the data is read there, if they are at hand.
        say: Told what was done.
    Returns:
        The version that the alias points at.
    Raises:
        ValueError: If there is no such job or version, or the version's model cannot do the job.
        ConnectionError: If MLflow is away.
    """
    tracking.connect()
    _require_job(name, job)
    _find(name, number)
    with tracking.changing(name, f"pin {job}", say=say):
        asked = _find(name, number)
        record = tracking.alias_records(name).get(job, tracking.AliasRecord())
        version = with_job(Path(root), asked, job)
        by = _by()
        news = replace(record.moved(version.number, f"pinned {by}."), pinned=by)
        key = tracking.model_key(version.tags)
        news = replace(news, withdrawn=tuple(model for model in news.withdrawn if model != key))
        tracking.write_aliases(name, {job: news})
    same = "" if version.number == number else f", which does this job and is the model of version {number}"
    say(f"models:/{name}@{job} is pinned to version {version.number} ({version.tags.get('family', '?')}){same}.")
    return version


def unpin(name: str, job: str, *, say: Callable[[str], None] = print) -> None:
    """Let an alias move again: it stays where it is until the next `register`.

    Raises:
        ValueError: If it is not pinned.
        ConnectionError: If MLflow is away.
    """
    tracking.connect()
    _record(name, job)
    with tracking.changing(name, f"unpin {job}", say=say):
        record = _record(name, job)
        if not record.pinned:
            raise ValueError(f"models:/{name}@{job} is not pinned; there is nothing to undo.")
        tracking.write_aliases(name, {job: replace(record, pinned="")})
    say(f"models:/{name}@{job} is at version {record.holder}, and free to move at the next `fivefold register`.")


def rollback(name: str, job: str, *, say: Callable[[str], None] = print) -> Version:
    """Give an alias back to the version that held it before; the model rolled back from does not get it again.

    A newer model still may. `pin` gives it back to the model rolled back from.

    Returns:
        The version that holds it now.
    Raises:
        ValueError: If nothing held it before, or it is pinned.
        ConnectionError: If MLflow is away.
    """
    tracking.connect()
    _record(name, job)
    with tracking.changing(name, f"rollback {job}", say=say):
        record = _record(name, job)
        if record.pinned:
            raise ValueError(
                f"models:/{name}@{job} is pinned to version {record.holder} ({record.pinned}). "
                f"Run `fivefold unpin {name}@{job}` first, or pin another version."
            )
        there = {version.number: version for version in tracking.versions(name)}
        left = there[record.holder]
        withdrawn = (*record.withdrawn, tracking.model_key(left.tags))
        before = list(record.before)
        while before and (before[-1] not in there or tracking.model_key(there[before[-1]].tags) in withdrawn):
            before.pop()
        if not before:
            raise ValueError(
                f"models:/{name}@{job}: no version held it before version {left.number}. "
                f"Pin one: `fivefold pin {name}@{job} N`."
            )
        version = there[before.pop()]
        why = f"rolled back from version {left.number} {_by()}."
        news = replace(record, holder=version.number, before=tuple(before), withdrawn=withdrawn, why=why)
        tracking.write_aliases(name, {job: news})
    say(
        f"models:/{name}@{job} is back at version {version.number} ({version.tags.get('family', '?')}); the model of "
        f"version {left.number} does not get it again, unless it is pinned."
    )
    return version


def _by() -> str:
    return f"by {tracking.user()} on {datetime.now(UTC).strftime('%Y-%m-%d %H:%M UTC')}"


def _require_job(name: str, job: str) -> None:
    if job not in USE_CASES:
        raise ValueError(f"{name}@{job}: there is no job {job!r}. Jobs: {', '.join(USE_CASES)}.")


def _find(name: str, number: int) -> Version:
    found = {version.number: version for version in tracking.versions(name)}
    if number not in found:
        known = f"has versions {_ranges(sorted(found))}" if found else "has no versions: see `fivefold register`"
        raise ValueError(f"{name} has no version {number}; it {known}.")
    return found[number]


def _ranges(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[-8:]))
    return shown if len(numbers) <= 8 else f"{numbers[0]} … {shown}"


def _record(name: str, job: str) -> AliasRecord:
    """Of an alias that somebody holds."""
    records = tracking.alias_records(name)
    if (record := records.get(job)) is None or record.holder is None:
        held = ", ".join(alias for alias, other in records.items() if other.holder is not None) or "none"
        raise ValueError(f"models:/{name}@{job} does not exist; aliases of {name}: {held}.")
    return record
