"""The chain from an alias back to raw data, each link checked."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from data.files import sha256
from pipelines import tracking
from pipelines.serving import artifact
from pipelines.tracking import Version


@dataclass(frozen=True, kw_only=True, slots=True)
class LineageCheck:
    """One link of the chain from an alias back to raw data.

    Arguments:
        name: What is checked.
        what: What was found.
        fault: What is wrong; empty when it holds.
        absent: Why it could not be checked here, where that is no fault; empty when it was.
    """

    name: str
    what: str
    fault: str = ""
    absent: str = ""

    def __str__(self) -> str:
        mark, more = ("BAD", self.fault) if self.fault else ("not", self.absent) if self.absent else ("ok ", "")
        return f"{mark} {self.name:9} {self.what}{more and f': {more}'}"


def verify(name: str, alias: str, *, root: str | Path = ".", say: Callable[[str], None] = print) -> list[LineageCheck]:
    """Check the chain from an alias back to raw data, and print it.

    Alias, version, files of the model by hash, run, data digest, prepared data by hash, source by hash. A copy of a
    version in another registered model has the same chain. Where the prepared data are not at hand, on another machine
    than the trainer's, the chain ends with the digest of the data that the run was given.

    Arguments:
        name: Of the registered model: the dataset, or what a version was copied to.
        alias: A job, `generation` say.
        root: The project's root.
        say: Where each link is printed.
    Returns:
        The links, none of which is broken.
    Raises:
        ValueError: If a link does not hold, naming it.
        ConnectionError: If MLflow is away.
    """
    tracking.connect()
    number = tracking.aliases(name).get(alias)
    if number is None:
        known = ", ".join(sorted(tracking.aliases(name))) or "none"
        raise ValueError(f"models:/{name}@{alias} does not exist; aliases of {name}: {known}.")
    version = next(version for version in tracking.versions(name) if version.number == number)
    links = [
        LineageCheck(name="alias", what=f"models:/{name}@{alias} is version {number} ({version.tags.get('family')})")
    ]
    run, dataset = _run_link(version)
    links += [*_model_links(version), run, *_data_links(version, Path(root), dataset or name)]
    for link in links:
        say(str(link))
    faults = [f"{link.name}: {link.what}: {link.fault}" for link in links if link.fault]
    if faults:
        raise ValueError(f"The lineage of models:/{name}@{alias} is broken. {' '.join(faults)}")
    return links


def _model_links(version: Version) -> Iterator[LineageCheck]:
    expected = version.tags.get("model_digest", "")
    what = f"model digest {expected[:12]}"
    with tempfile.TemporaryDirectory() as temporary:
        try:
            folder, vouched = tracking.checked_download(version, temporary)
            yield LineageCheck(name="files", what=vouched)
        except (ValueError, OSError) as error:
            yield LineageCheck(name="files", what="every file of the version", fault=str(error))
            return
        try:
            weights = next(folder.glob(f"artifacts/*/{artifact.WEIGHTS}"))
            artifact.read(weights.parent)
            found = artifact.model_digest(weights.parent)
        except StopIteration:
            yield LineageCheck(name="model", what=what, fault="the registered files hold no weights")
        except (ValueError, OSError) as error:
            yield LineageCheck(name="model", what=what, fault=str(error))
        else:
            other = "" if found == expected else f"the registered files have {found[:12]}."
            yield LineageCheck(name="model", what=what, fault=other)


def _run_link(version: Version) -> tuple[LineageCheck, str]:
    """The run's link, and the dataset that it says it was given; empty if it cannot be asked."""
    what = f"run {version.run_id}"
    try:
        run = tracking.run_record(version.run_id)
    except ValueError as error:
        return LineageCheck(name="run", what=what, fault=str(error)), ""
    commit = run["tags"].get("git_commit", "unknown")[:12]
    what += f", {run['status'].lower()}, code {commit}{' (changed)' if run['tags'].get('git_dirty') == 'true' else ''}"
    digest = version.tags.get("data_digest", "")
    fault = "" if digest[:36] in run["dataset_digests"] else f"it was not given data {digest[:12]}."
    return LineageCheck(name="run", what=what, fault=fault), run["tags"].get("dataset", "")


def _data_links(version: Version, root: Path, dataset: str) -> Iterator[LineageCheck]:
    from data.cards import load_card
    from data.dataset import Dataset

    digest = version.tags.get("data_digest", "")
    folder = root / "data" / "prepared" / dataset
    if not folder.exists():
        absent = f"there is no {folder} here; where the model was trained the rest of the chain can be checked"
        yield LineageCheck(name="data", what=f"prepared data {digest[:12]}", absent=absent)
        return
    try:
        prepared = Dataset.open(folder)
        prepared.verify()
        other = "" if prepared.digest == digest else f"{folder} now holds data {prepared.digest[:12]}."
        yield LineageCheck(name="data", what=f"prepared data {digest[:12]}, every shard checked", fault=other)
        source = prepared.manifest["source"]
        stated = str(source.get("sha256", ""))
        card = load_card(dataset, root).source
        fault = "" if card.sha256 in ("", stated) else f"the card of {dataset} says SHA-256 {card.sha256[:12]}."
        path = root / card.path if card.path else None
        if not fault and path is not None and path.is_file() and sha256(path) != stated:
            fault = f"{path} has changed since."
        where = source.get("path") or source.get("url") or source.get("builtin") or "source"
        yield LineageCheck(name="source", what=f"{where}, SHA-256 {stated[:12]}", fault=fault)
    except (ValueError, OSError) as error:
        yield LineageCheck(name="data", what=f"prepared data {digest[:12]}", fault=str(error))
