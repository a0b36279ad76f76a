"""What is known of an alias besides where it points: who held it before, what was rolled back, whether it is pinned.

MLflow's alias is a pointer. Beside the pointers stands one tag of the registered model, `aliases`, written before they
move, for all that move together: what somebody who was killed in between had begun, the next who changes the registry
ends. So a `register` gives every job away or none.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace

from pipelines.tracking import turns
from pipelines.tracking.server import answered, get_client, is_absence

MOST_REMEMBERED = 40
"""Versions that held an alias before, and models withdrawn from it, that its record remembers."""
LONGEST = 5_000
"""Characters of a registered model's tag in MLflow."""
TAG = "aliases"


@dataclass(frozen=True, kw_only=True, slots=True)
class AliasRecord:
    """An alias of a registered model.

    Arguments:
        holder: The version that holds it; `None` for none.
        before: Versions that held it before, oldest first.
        withdrawn: Models that were rolled back from: they do not get it again by themselves.
        pinned: By whom and when it was pinned; empty when it is free to move.
        why: Why its holder holds it.
        settled: Whether the pointer is where `holder` says.
    """

    holder: int | None = None
    before: tuple[int, ...] = ()
    withdrawn: tuple[str, ...] = ()
    pinned: str = ""
    why: str = ""
    settled: bool = True

    def moved(self, holder: int | None, why: str) -> AliasRecord:
        """The record after another version got the alias."""
        before = self.before if self.holder is None or holder == self.holder else (*self.before, self.holder)
        return replace(self, holder=holder, before=before[-MOST_REMEMBERED:], why=why)


@answered
def alias_records(name: str) -> dict[str, AliasRecord]:
    """By alias what is known of it; what was moved by hand in MLflow counts as moved. None without such a model."""
    from mlflow.exceptions import MlflowException

    try:
        model = get_client().get_registered_model(name)
    except MlflowException as error:
        if is_absence(error):
            return {}
        raise
    pointers, kept = {alias: int(number) for alias, number in model.aliases.items()}, _read(model.tags.get(TAG, "{}"))
    found = {}
    for alias in sorted({*pointers, *kept}):
        record, pointer = kept.get(alias, AliasRecord()), pointers.get(alias)
        if record.settled and record.holder != pointer:
            record = record.moved(pointer, "" if alias not in kept else "it was moved by hand.")
        found[alias] = record
    return found


@answered
def write_aliases(name: str, news: Mapping[str, AliasRecord]) -> None:
    """Say what is known of some aliases, all at once, and point them where that says.

    Raises:
        turns.LostTurn: If another took over meanwhile.
    """
    client = get_client()
    model = client.get_registered_model(name)
    records, pointers = {**alias_records(name), **news}, {alias: int(number) for alias, number in model.aliases.items()}
    moves = [alias for alias in news if pointers.get(alias) != records[alias].holder]
    said = {alias: replace(record, settled=alias not in moves) for alias, record in records.items()}
    turns.confirm()
    if _written(said) != model.tags.get(TAG):
        client.set_registered_model_tag(name, TAG, _written(said))
    for alias in moves:
        if (holder := records[alias].holder) is None:
            client.delete_registered_model_alias(name, alias)
        else:
            client.set_registered_model_alias(name, alias, str(holder))
    if moves:
        settled = {alias: replace(record, settled=True) for alias, record in said.items()}
        client.set_registered_model_tag(name, TAG, _written(settled))


@contextlib.contextmanager
def changing(name: str, what: str, *, experiment: str = "", say: Callable[[str], None] = print) -> Iterator[None]:
    """Change a registered model while nobody else does, and first end what one who was killed had begun.

    Arguments:
        name: Of the registered model; it is made if missing.
        what: What for, as those read it who wait.
        experiment: Name of the experiment that remembers the changes; by default that of the same name.
        say: Told when there is somebody to wait for.
    """
    with turns.taking_turn(_ledger(name, experiment or name), what, say):
        begun = {alias: record for alias, record in alias_records(name).items() if not record.settled}
        if begun:
            gone = {
                alias: record.moved(None, "") for alias, record in begun.items() if not _exists(name, record.holder)
            }
            write_aliases(name, {**begun, **gone})
        yield


@answered
def _exists(name: str, number: int | None) -> bool:
    from mlflow.exceptions import MlflowException

    try:
        return number is None or bool(get_client().get_model_version(name, str(number)))
    except MlflowException as error:
        if is_absence(error):
            return False
        raise


@answered
def _ledger(name: str, experiment: str) -> str:
    return turns.ledger(name, experiment)


def _written(records: Mapping[str, AliasRecord]) -> str:
    for most in (MOST_REMEMBERED, 10, 3, 1):
        short = {
            alias: asdict(replace(record, before=record.before[-most:], withdrawn=record.withdrawn[-most:]))
            for alias, record in records.items()
        }
        text = json.dumps(short, sort_keys=True, ensure_ascii=False)
        if len(text) <= LONGEST:
            break
    return text


def _read(text: str) -> dict[str, AliasRecord]:
    return {
        alias: AliasRecord(**{**kept, "before": tuple(kept["before"]), "withdrawn": tuple(kept["withdrawn"])})
        for alias, kept in json.loads(text).items()
    }
