"""What the page shows, from what is on disk."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pipelines.evaluation.metrics.anomaly import ANOMALY_AUROC_OF_KIND
from pipelines.evaluation.use_cases import USE_CASES
from pipelines.report import charts, domains, metrics
from pipelines.report.explorer import explorers
from pipelines.report.family import Quantity, Section, samples, section
from pipelines.report.loading import Family, Problem, Run, mapping, sequence
from pipelines.report.metrics import Row
from pipelines.report.numbers import DASH, count, duration, finite, plain, setting, short

HOW_MUCH = {
    "samples": "samples drawn",
    "compared": "of them in the distances",
    "reference_rows": "test examples",
    "bootstrap": "bootstrap resamples behind each 95 % interval",
    "bound_samples": "draws behind each likelihood bound",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class UseCaseSummary:
    """Who holds a job, and how well.

    Arguments:
        job: The job.
        alias: Address of the model that holds it.
        holder: Family that holds it; empty if none.
        version: Its version.
        earlier: Whether that is another model than the family's measured here.
        same_as: Another version of the same model, the family's that does not know its job; empty if there is none.
        measured: The family measured best, where nobody holds it.
        title: What the deciding metric is called.
        line: What it says.
        unit: What it is measured in.
        better: Which direction is better.
        value: As shown.
        interval: As shown.
        floor: As shown.
        baseline: As shown.
        standing: How the value stands to floor and baseline.
        why: Why the holder holds it.
        plot: All families' values; `None` if nobody has one.
        problem: What is missing; `None` if nothing.
    """

    job: str
    alias: str
    holder: str
    version: str
    earlier: bool
    same_as: str
    measured: str
    title: str
    line: str
    unit: str
    better: str
    value: str
    interval: str
    floor: str
    baseline: str
    standing: str
    why: str
    plot: charts.Forest | None
    problem: Problem | None


@cache
def environment() -> Environment:
    """Templates that escape whatever they are given."""
    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"count": count, "duration": duration, "setting": setting, "short": short}
    return made


def page(run: Run) -> str:
    """The whole page as HTML."""
    script = (Path(__file__).parent / "page.js").read_text(encoding="utf-8")
    context = {
        "run": run,
        "head": head(run),
        "script": Markup(script),
        "script_digest": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "samples": samples(run.families),
        "explorers": explorers(run.families),
        "verdicts": verdicts(run),
        "leaderboard": leaderboard(run),
        "measured": how_measured(run),
        "overview": overview(run),
        "timings": {family.name: timing(family) for family in run.families},
        "families": [family_section(run, family) for family in run.families],
        "lineage": lineage(run),
    }
    return environment().get_template("page.html").render(context) + "\n"


# The head


def head(run: Run) -> dict[str, Any]:
    """Title, provenance and the size of the data."""
    commits = sorted({str(v["git_commit"]) for v in versions(run).values() if v.get("git_commit")})
    dirty = any(str(v.get("git_dirty")).lower() == "true" for v in versions(run).values())
    seeds = [run.yardstick.get("seed"), *(family.model.get("seed") for family in run.families)]
    digests = [run.yardstick.get("data_digest"), *(family.model.get("data_digest") for family in run.families)]
    splits = {name: mapping(split).get("count") for name, split in mapping(run.manifest.get("splits")).items()}
    domain = mapping(run.yardstick.get("domain") or next((f.model.get("domain") for f in run.families), None))
    return {
        "title": str(run.manifest.get("title") or ""),
        "licence": str(run.manifest.get("licence") or ""),
        "splits": {name: count(size) for name, size in splits.items()},
        "digest": str(next((digest for digest in digests if digest), "")),
        "seed": ", ".join(sorted({str(seed) for seed in seeds if seed is not None})),
        "commit": ", ".join(commit[:12] for commit in commits),
        "dirty": dirty,
        "newest": run.newest,
        "use": domains.use(domain),
        "classes": [str(name) for name in sequence(run.yardstick.get("class_names"))],
    }


def versions(run: Run) -> dict[str, dict[str, Any]]:
    """By family, what the registry's record says of its version."""
    return {name: mapping(version) for name, version in mapping(run.registry.get("versions")).items()}


def jobs(run: Run) -> dict[str, dict[str, Any]]:
    """By job, what the registry's record says."""
    return {name: mapping(job) for name, job in mapping(run.registry.get("jobs")).items()}


# Verdicts


def verdicts(run: Run) -> list[UseCaseSummary]:
    """One per job of `evaluate` and of the registry's record; none for a job that no family can do."""
    found = [verdict(run, job) for job in dict.fromkeys([*USE_CASES, *jobs(run)])]
    return [one for one in found if one.plot or one.holder] or found


def verdict(run: Run, job: str) -> UseCaseSummary:
    """Who holds a job. An alias may belong to an older version than the one measured here."""
    record = jobs(run).get(job, {})
    entries, names = deciding(run, job)
    holder = str(record.get("family") or "")
    measured = "" if holder else best(entries)
    metric = str(record.get("metric") or names.get(holder or measured) or "")
    row = metric_row(run, metric)
    low, high = [*sequence(record.get("interval")), None, None][:2]
    held = {"value": record.get("value"), "low": low, "high": high, "unit": record.get("unit"), "better": row.better}
    held = entries.get(measured, held)
    floor, baseline = beside(run, metric, "floor"), beside(run, metric, "baseline")
    labels = {f: f"{f} · bound" if name.endswith("_bound") else f for f, name in names.items()}
    decimals = metrics.decimals_of([*entries.values(), run.floors.get(metric, {}), run.baseline.get(metric, {}), held])
    shown = {labels[name]: entry for name, entry in entries.items()}
    chosen, earlier = labels.get(holder, ""), bool(holder) and not is_measured(run, record)
    known = versions(run).get(holder, {}).get("version")
    if earlier:
        chosen = f"{holder} v{record.get('version')}"
        shown[chosen] = held
    plot = charts.forest(
        row.title,
        shown,
        chosen=chosen,
        better=row.better,
        floor=floor,
        baseline=baseline,
        texts={label: plain(finite(entry.get("value")), decimals) for label, entry in shown.items()},
    )
    return UseCaseSummary(
        job=job,
        alias=str(record.get("alias") or f"models:/{run.dataset}@{job}"),
        holder=holder,
        version=str(record.get("version") or ""),
        earlier=earlier,
        same_as="" if known in (None, record.get("version")) else str(known),
        measured=measured,
        title=row.title,
        line=row.line,
        unit=row.unit,
        better=row.better,
        value=plain(finite(held["value"]), decimals),
        interval=metrics.interval(held, decimals),
        floor=plain(floor, decimals),
        baseline=plain(baseline, decimals),
        standing=metrics.comparison_text(held, {"the classical baseline": baseline, "real data": floor}),
        why=str(record.get("why") or ""),
        plot=plot,
        problem=run.problems.get("registry"),
    )


def is_measured(run: Run, record: Mapping[str, Any]) -> bool:
    """Whether the version that holds a job is the model that its family's results are of.

    By the model's digest: a version that knows its job has another number than the family's version of the same model.
    """
    family = next((family for family in run.families if family.name == record.get("family")), None)
    if family is None:
        return False
    version = versions(run).get(family.name, {})
    same = record.get("version") == version.get("version")
    digest = record.get("model_digest") or (version.get("model_digest") if same else None)
    return bool(digest) and digest == family.results.get("model_digest")


def deciding(run: Run, job: str) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """By family, the metric that decides a job, and its name."""
    candidates = USE_CASES[job].metrics if job in USE_CASES else tuple(filter(None, [jobs(run)[job].get("metric")]))
    entries, names = {}, {}
    for family in run.families:
        name = next(
            (name for name in candidates if finite(family.metrics.get(name, {}).get("value")) is not None), None
        )
        if name:
            entries[family.name], names[family.name] = family.metrics[name], name
    return entries, names


def best(entries: Mapping[str, Mapping[str, Any]]) -> str:
    """The family with the best value; empty if there is none."""
    sign = {"lower": 1, "higher": -1}
    known = {
        f: sign[str(e["better"])] * (finite(e["value"]) or 0.0)
        for f, e in entries.items()
        if str(e.get("better")) in sign
    }
    return min(known, key=lambda family: known[family]) if known else ""


def beside(run: Run, metric: str, part: str) -> float | None:
    """A metric's floor or baseline: as the results say, else as the yardstick does."""
    said = (finite(family.metrics.get(metric, {}).get(part)) for family in run.families)
    known = (run.floors if part == "floor" else run.baseline).get(metric, {}).get("value")
    return next((value for value in said if value is not None), finite(known))


# Leaderboard


def metric_row(run: Run, name: str) -> Row:
    """A metric of all families."""
    entries = [family.metrics.get(name, {}) for family in run.families]
    return metrics.row(name, entries, run.floors.get(name, {}), run.baseline.get(name, {}))


def leaderboard(run: Run) -> dict[str, list[Row]]:
    """By group, a row per metric that anything was measured by."""
    names = [name for source in (*(f.metrics for f in run.families), run.baseline, run.floors) for name in source]
    return {title: [metric_row(run, name) for name in group] for title, group in metrics.grouped(names).items()}


def how_measured(run: Run) -> list[str]:
    """Sentences on how much was measured, and with what."""
    said = []
    results = next((family.results for family in run.families if family.results), {})
    settings = mapping(results.get("settings"))
    amounts = [
        f"{count(settings[key])} {text}" for key, text in HOW_MUCH.items() if finite(settings.get(key)) is not None
    ]
    if amounts:
        said.append(f"Every family: {', '.join(amounts)}.")
    baseline = mapping(run.yardstick.get("baseline"))
    if baseline.get("what"):
        said.append(
            f"The classical baseline: {baseline['what']} ({count(baseline.get('components'))} components); for"
            f" densities: {baseline.get('density', DASH)}."
        )
    ways = mapping(run.yardstick.get("imputation"))
    if ways:
        told = [f"{way} {short(finite(mapping(found).get('imputation_crps')))}" for way, found in ways.items()]
        said.append(f"Classical imputation, ranked probability score: {', '.join(told)}; the best is the baseline.")
    for role, network in mapping(run.yardstick.get("networks")).items():
        accuracy = finite(mapping(mapping(network).get("accuracy")).get("test"))
        if accuracy is not None:
            said.append(f"The yardstick's {role} recognizes {100 * accuracy:.1f} % of the test data.")
    prefix = ANOMALY_AUROC_OF_KIND.name
    kinds = sorted({n.removeprefix(prefix) for f in run.families for n in f.metrics if n.startswith(prefix)})
    if kinds:
        said.append(f"Anomalies measured: {', '.join(kinds)}.")
    criterion = mapping(results.get("copies")).get("criterion")
    if criterion:
        said.append(f"Samples pass the copy check with {criterion}.")
    return said


# Training


def overview(run: Run) -> list[charts.Curve]:
    """The validation distance of each family, before those of the others."""
    found = {family.name: family.curves.get("validation_frechet", []) for family in run.families}
    lines = {name: points for name, points in found.items() if len(points) > 1}
    return [
        charts.curve(name, points, others=[line for other, line in lines.items() if other != name], better="lower")
        for name, points in lines.items()
    ]


def timing(family: Family) -> dict[str, Quantity]:
    """How large a family is and how long everything took."""
    seconds, settings = mapping(family.results.get("seconds")), mapping(family.results.get("settings"))
    train, examples = finite(family.model.get("train_seconds")), finite(family.model.get("total_examples"))
    draw, drawn = finite(seconds.get("draw")), finite(settings.get("samples"))
    steps = [number for name, value in seconds.items() if name != "draw" and (number := finite(value)) is not None]
    parameters = finite(family.model.get("parameters") or family.results.get("parameters"))
    speed = examples / train if examples and train else None
    thousand = 1000 * draw / drawn if draw is not None and drawn else None
    evaluation = sum(steps) if steps else None
    return {
        "parameters": Quantity(text=count(parameters), number=parameters),
        "examples": Quantity(text=count(examples), number=examples),
        "train": Quantity(text=duration(train), number=train),
        "speed": Quantity(text=count(speed), number=speed),
        "draw": Quantity(text=duration(thousand), number=thousand),
        "evaluate": Quantity(text=duration(evaluation), number=evaluation),
    }


# Families


def family_section(run: Run, family: Family) -> Section:
    """A family's section."""
    records = {f"@{job}": record for job, record in jobs(run).items() if record.get("family") == family.name}
    held = [alias for alias, record in records.items() if is_measured(run, record)]
    earlier = {
        alias: str(record.get("version") or DASH) for alias, record in records.items() if not is_measured(run, record)
    }
    return section(family, timing(family), held, earlier)


# Lineage


def lineage(run: Run) -> list[dict[str, Any]]:
    """A row per family, and one per older version that still holds an alias."""
    rows = []
    for family in run.families:
        version = versions(run).get(family.name, {})
        number = version.get("version")
        rows.append(
            {
                "family": family.name,
                "data": str(family.model.get("data_digest") or version.get("data_digest") or ""),
                "yardstick": str(family.results.get("yardstick_digest") or ""),
                "run": str(family.model.get("run_id") or version.get("run_id") or ""),
                "model": str(version.get("model_digest") or family.results.get("model_digest") or ""),
                "version": DASH if number is None else str(number),
                "aliases": aliases(run, family.name, number, str(version.get("model_digest") or "")),
                "commit": str(version.get("git_commit") or ""),
                "faults": faults(run, family, version),
            }
        )
    known = {(row["family"], row["version"]) for row in rows}
    models = {(row["family"], row["model"]) for row in rows if row["model"]}
    for record in jobs(run).values():
        family_name, number = str(record.get("family") or ""), record.get("version")
        if (family_name, record.get("model_digest")) in models:
            continue  # the same model, as the version that does this job
        if family_name and (family_name, str(number)) not in known:
            known.add((family_name, str(number)))
            blank = dict.fromkeys(("data", "yardstick", "run", "model", "commit"), "")
            found = {"family": family_name, "version": str(number), "aliases": aliases(run, family_name, number)}
            rows.append(blank | found | {"faults": ["an earlier version, kept because nothing beat it"]})
    return rows


def aliases(run: Run, family: str, number: object, model: str = "") -> list[str]:
    """The jobs that a version holds, itself or as a version of the same model that knows its job."""
    held = [(job, record) for job, record in jobs(run).items() if record.get("family") == family]
    return [
        f"@{job}"
        for job, record in held
        if record.get("version") == number or (model and record.get("model_digest") == model)
    ]


def faults(run: Run, family: Family, version: Mapping[str, Any]) -> list[str]:
    """Links of the chain that do not fit each other."""
    pairs = [
        ("results and model are of different data", family.results.get("data_digest"), family.model.get("data_digest")),
        (
            "model and yardstick are of different data",
            family.model.get("data_digest"),
            run.yardstick.get("data_digest"),
        ),
        ("measured with another yardstick", family.results.get("yardstick_digest"), run.yardstick.get("digest")),
        ("measured and registered models differ", family.results.get("model_digest"), version.get("model_digest")),
        ("trained and registered runs differ", family.model.get("run_id"), version.get("run_id")),
    ]
    return [what for what, one, other in pairs if one and other and one != other]
