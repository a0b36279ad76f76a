"""The section of one family: what it can do, its pictures, curves and settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.evaluation.metrics import describe
from pipelines.report import charts
from pipelines.report.domains import table
from pipelines.report.loading import Family, Problem, mapping, sequence
from pipelines.report.numbers import DASH, count, finite, listed, setting, short
from pipelines.report.pictures import Picture

STEPS = {
    "sample": "draw samples",
    "log_prob": "compute exact likelihoods",
    "elbo": "bound likelihoods",
    "reconstruct": "reconstruct",
    "codes": "encode and decode",
    "anomaly": "score anomalies",
    "impute": "fill in missing values",
}
"""What `evaluate` measures, and what a model that it is measured of can do."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FigureSpec:
    """What `evaluate` leaves to be looked at, as it is shown.

    Arguments:
        name: What it is called there.
        title: Heading.
        images: What is seen in a picture.
        rows: What is seen in rows of a table.
    """

    name: str
    title: str
    images: str
    rows: str


PICTURES = (
    FigureSpec(
        name="nearest",
        title="Nearest training examples",
        images="In each pair a sample above, the training example nearest to it below. A copy would look the same.",
        rows="In each pair a sample above, the training row nearest to it below; what differs is marked.",
    ),
    FigureSpec(
        name="reconstructions",
        title="Reconstructions",
        images="In each pair a test example above, what the model makes of it below.",
        rows="In each pair a test row above, what the model makes of it below; what differs is marked.",
    ),
    FigureSpec(
        name="interpolations",
        title="Interpolations",
        images="Each row goes from one test example to another through their codes.",
        rows="From one test row to another through their codes.",
    ),
    FigureSpec(
        name="imputations",
        title="Imputations",
        images="From top to bottom a test example, what the model was given of it, and three draws of the rest.",
        rows="Test rows whose marked cells were hidden, and three draws of these cells.",
    ),
    FigureSpec(
        name="anomalies",
        title="Most anomalous test examples",
        images="The most anomalous first, row by row, by the model's own score.",
        rows="The most anomalous first, with the model's own score.",
    ),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """A picture, or rows of a table, with words; there is one of both.

    Arguments:
        title: Heading.
        caption: What is seen.
        alt: For those who do not see it.
        picture: The picture; `None` if there is none.
        rows: The rows; `None` if there are none.
    """

    title: str
    caption: str
    alt: str
    picture: Picture | None = None
    rows: table.Rows | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Quantity:
    """A number in a table that can be sorted.

    Arguments:
        text: As shown.
        number: What it is sorted by; `None` for nothing.
    """

    text: str
    number: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """A trial of the search.

    Arguments:
        settings: As written.
        score: What it scored.
        examples: Examples seen.
        note: Whether it is the settings as written, was chosen, stopped or failed.
    """

    settings: str
    score: Quantity
    examples: Quantity
    note: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """A family's section.

    Arguments:
        name: The family.
        size: How large it is and how long it was trained.
        held: Aliases that this model holds.
        earlier: Which aliases earlier versions of the family hold, as a sentence; empty if none.
        abilities: What it can do and what not, as sentences.
        copies: Outcome of the copy check; empty if unknown.
        progress: Grids of samples over training.
        figures: Pictures of the finished model, or rows.
        histograms: Of a table's columns.
        matrices: Associations of a table's columns.
        told_apart: By which columns of a table samples are told from real rows; empty if unknown.
        left_out: What was not measured, and why; empty if nothing was left out.
        curves: Charts.
        settings: By heading, the settings as (name, value, whether `tune` chose it).
        tuned: What `tune` chose and why.
        trials: Its trials.
        problems: What is missing.
    """

    name: str
    size: str
    held: list[str]
    earlier: str
    abilities: str
    copies: str
    progress: list[Figure]
    figures: list[Figure]
    histograms: list[table.Histogram]
    matrices: list[table.Matrix]
    told_apart: str
    left_out: str
    curves: list[charts.Curve]
    settings: dict[str, list[tuple[str, str, bool]]]
    tuned: str
    trials: list[Trial]
    problems: list[Problem]


def section(family: Family, facts: Mapping[str, Quantity], held: list[str], earlier: Mapping[str, str]) -> Section:
    """A family's section from what is on disk.

    Arguments:
        family: What is on disk.
        facts: Size and times, as shown.
        held: Aliases that this model holds.
        earlier: By alias that another version of the family holds, its number.
    """
    return Section(
        name=family.name,
        size=size(facts),
        held=held,
        earlier=held_by_earlier(earlier),
        abilities=abilities(mapping(family.results.get("seconds"))),
        copies=copy_check(family),
        progress=progress(family),
        figures=figures(family),
        histograms=table.histograms(family.exhibits),
        matrices=table.matrices(family.exhibits),
        told_apart=table.told_apart(family.results),
        left_out=left_out(family.results),
        curves=list(curves(family).values()),
        settings=settings(family),
        tuned=tuned(family),
        trials=trials(family),
        problems=family.problems,
    )


def abilities(done: Mapping[str, Any]) -> str:
    """What a family can do and what not, by what was measured of it, as sentences; empty if unknown."""
    can = [text for step, text in STEPS.items() if step in done]
    cannot = [text for step, text in STEPS.items() if step not in done]
    said = f"Can {listed(can, 'and')}." if can else ""
    return f"{said} Cannot {listed(cannot, 'or')}." if can and cannot else said


def size(facts: Mapping[str, Quantity]) -> str:
    """How large a family is and how long it was trained, as a sentence; empty if unknown."""
    said = [f"{facts['parameters'].text} parameters"] if facts["parameters"].number is not None else []
    if facts["examples"].number is not None:
        said.append(f"{facts['examples'].text} examples seen in {facts['train'].text}")
    return f"{', '.join(said)}." if said else ""


def held_by_earlier(versions: Mapping[str, str]) -> str:
    """Which aliases belong to other versions of a family, as a sentence; empty if none do."""
    said = [f"{alias} is held by version {version}" for alias, version in versions.items()]
    return f"{listed(said, 'and')}: another model than this one." if said else ""


def copy_check(family: Family) -> str:
    """The outcome of the copy check as a sentence; empty if it was not made."""
    clean = mapping(family.results.get("copies")).get("clean")
    if not isinstance(clean, bool):
        return ""
    return "Copy check: clean." if clean else "Copy check: not clean; samples repeat training examples."


def left_out(results: Mapping[str, Any]) -> str:
    """What was not measured of a family, by reason, as a sentence; empty if nothing was left out."""
    reasons: dict[str, list[str]] = {}
    for name, reason in mapping(results.get("left_out")).items():
        found = describe(name)
        reasons.setdefault(str(reason), []).append(found.title if found else name)
    said = [f"{listed(titles, 'and')} ({reason})" for reason, titles in reasons.items()]
    return f"Not measured: {'; '.join(said)}." if said else ""


def progress(family: Family) -> list[Figure]:
    """Grids of samples from the same latents, as training went on."""
    return [
        Figure(
            title=f"{count(examples)} examples",
            caption="",
            alt=f"Samples of {family.name} from fixed latents after {count(examples)} training examples",
            picture=picture,
        )
        for examples, picture in family.progress
    ]


def figures(family: Family) -> list[Figure]:
    """Pictures of the finished model, or rows, of what it can do."""
    found = []
    for shown in PICTURES:
        picture, kept = family.pictures.get(shown.name), table.rows(family.exhibits, shown.name)
        caption = shown.rows if kept else shown.images
        alt = f"{shown.title} of {family.name}. {caption}"
        if picture or kept:
            found.append(Figure(title=shown.title, caption=caption, alt=alt, picture=picture, rows=kept))
    return found


def samples(families: Sequence[Family]) -> list[Figure]:
    """Samples of every family, after real test examples."""
    found = []
    real = next((family.pictures["real"] for family in families if "real" in family.pictures), None)
    real_rows = next((rows for family in families if (rows := table.samples(family.exhibits, real=True))), None)
    if real or real_rows:
        alt = "Test examples, not chosen"
        found.append(Figure(title="real data", caption="", alt=alt, picture=real, rows=real_rows))
    for family in families:
        picture, kept = family.pictures.get("samples"), table.samples(family.exhibits, real=False)
        if picture or kept:
            alt = f"Samples of {family.name}, not chosen"
            found.append(Figure(title=family.name, caption="", alt=alt, picture=picture, rows=kept))
    return found


def curves(family: Family) -> dict[str, charts.Curve]:
    """Charts of the validation distance, the losses, then everything else that was recorded twice, by what it is."""

    def rank(name: str) -> int:
        places = (name == "validation_frechet", name.endswith("loss"), not name.endswith(("gradient_norm", "lr")))
        return next((place for place, holds in enumerate(places) if holds), len(places))

    return {
        (what := name.removeprefix(f"{family.name}_")): charts.curve(
            VALIDATION if name == "validation_frechet" else what.replace("_", " "),
            family.curves[name],
            better="lower" if name == "validation_frechet" else "",
            log=name != "lr",
        )
        for name in sorted(family.curves, key=rank)
        if len(family.curves[name]) > 1
    }


VALIDATION = "Fréchet distance, validation"


def settings(family: Family) -> dict[str, list[tuple[str, str, bool]]]:
    """By heading, the settings that the model was trained with, and those it draws with."""
    chosen = mapping(family.tune.get("settings"))
    found = {}
    for heading, section_name, values in (
        ("Model", "model", mapping(family.model.get("config"))),
        ("Training", "training", mapping(family.model.get("training"))),
        ("Sampling", "sampling", mapping(family.model.get("sampling"))),
    ):
        rows = [(name, setting(value), f"{section_name}.{name}" in chosen) for name, value in sorted(values.items())]
        if rows:
            found[heading] = rows
    return found


def tuned(family: Family) -> str:
    """What `tune` chose and why, as a sentence; empty if it did not run."""
    if not family.tune:
        return ""
    chosen = mapping(family.tune.get("settings"))
    what = ", ".join(f"{name} = {setting(value)}" for name, value in chosen.items()) or "the settings as written"
    why = str(family.tune.get("why") or "")
    return f"The search chose {what}" + (f" ({why})." if why else ".")


def trials(family: Family) -> list[Trial]:
    """The trials of the search, the best first, failed ones last."""
    entries = [mapping(trial) for trial in sequence(family.tune.get("trials")) if isinstance(trial, Mapping)]
    longest = max((finite(trial.get("examples")) or 0 for trial in entries), default=0)
    chosen = mapping(family.tune.get("settings"))

    def note(trial: Mapping[str, Any]) -> str:
        said = []
        if trial.get("as_written"):
            said.append("as written")
        if chosen and mapping(trial.get("settings")) == chosen:
            said.append("chosen")
        if trial.get("error"):
            said.append(f"failed: {trial['error']}")
        elif (finite(trial.get("examples")) or 0) < longest:
            said.append("stopped early")
        return ", ".join(said)

    def key(trial: Mapping[str, Any]) -> tuple[bool, float]:
        score = finite(trial.get("score"))
        return score is None, score or 0.0

    return [
        Trial(
            settings=", ".join(f"{k} = {setting(v)}" for k, v in mapping(trial.get("settings")).items()) or DASH,
            score=Quantity(text=short(finite(trial.get("score"))), number=finite(trial.get("score"))),
            examples=Quantity(text=count(trial.get("examples")), number=finite(trial.get("examples"))),
            note=note(trial),
        )
        for trial in sorted(entries, key=key)
    ]
