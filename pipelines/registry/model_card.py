"""The page of a version in the registry: what it is, its figures, what it is fit for, how to load it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from data import formats
from data.quoting import in_markdown
from pipelines.evaluation.metrics.base import Metric
from pipelines.evaluation.use_cases import USE_CASES
from pipelines.serving import signature
from pipelines.serving.domains import conversion

UNFIT = {
    "generation": "Draws are not real records: do not count, audit or decide about people with them.",
    "density": "Densities of different datasets, or of other units or roundings of the same, cannot be compared.",
    "anomaly": "A flag says that a row is unlike the training data, not that it is wrong or a fraud.",
    "imputation": "One filled-in table hides how unsure the cells are: ask for several `draws` before you conclude.",
    "representation": "Codes of two versions lie in different spaces: do not mix them.",
}
"""What a version is not to be used for, by job."""

FIT = {
    "generation": "drawing new examples that are distributed as the data",
    "density": "the log-probability of examples, in nats",
    "anomaly": "finding examples unlike the training data, at a rate of false alarms that the caller names",
    "imputation": "filling in missing cells, several times over",
    "representation": "codes of examples, for models of your own",
}


def model_card(
    dataset: str,
    facts: Mapping[str, Any],
    results: Mapping[str, Any],
    manifest: Mapping[str, Any],
    about: Mapping[str, Any],
) -> str:
    """The page, Markdown.

    Arguments:
        dataset: Name of the registered model.
        facts: Of `model.json`.
        results: Of its evaluation: `metrics` with intervals, floors and baselines.
        manifest: Of the prepared data; may be empty.
        about: What the version knows of itself: `job`, `label`, `held_out_scores`, `exact`.
    """
    job = str(about.get("job") or "")
    described = signature.describe(facts, about, formats)
    rows = conversion(facts, about, formats)
    title = in_markdown(str(manifest.get("title") or dataset))
    licence = in_markdown(str(manifest.get("licence") or ""))
    licence = licence or "not stated; ask whoever owns the data before you pass anything on"
    classes = ", ".join(in_markdown(str(name)) for name in facts.get("class_names") or ()) or "none"
    held_out = len(about.get("held_out_scores") or ())
    intended = [f"- {FIT[job]} (its job)"] if job in FIT else [f"- {FIT[name]}" for name in _measured(results)]
    unfit = [f"- {UNFIT[name]}" for name in ([job] if job in UNFIT else _measured(results))]
    lines = [
        f"# {dataset}: {facts['family']}" + (f", for {job}" if job else ""),
        f"A {facts['family']} trained on *{title}*."
        + (f" Unasked it does task `{described.task}`." if job else " It has no job: name a `task`."),
        "## Data",
        f"- {title}, digest `{str(facts.get('data_digest', ''))[:12]}`",
        f"- Licence: {licence}",
        *([f"- Source: {in_markdown(str(manifest['citation']))}"] if manifest.get("citation") else []),
        f"- Classes: {classes}",
        *_splits(manifest),
        "## Figures",
        "Intervals are 95 % bootstrap intervals. The floor is what real examples score, the baseline is classical.",
        "",
        *_figures(results),
        "## Privacy",
        *_promise(facts),
        *_privacy(results),
        "## Fit for",
        *(intended or ["- nothing was measured"]),
        "## Not fit for",
        *unfit,
        "- Data that differ from the training data in origin or time: measure again first.",
        f"- P-values come from {held_out} held-out rows." if held_out else "- P-values: it has no held-out scores.",
        "## How to load it",
        "```python",
        "import mlflow",
        f'model = mlflow.pyfunc.load_model("models:/{dataset}@{job}")'
        if job
        else "model = mlflow.pyfunc.load_model(uri)",
        'model.predict(None, params={"task": "describe"})   # tasks, classes, columns, units, thresholds',
        'model.predict(None, params={"task": "sample", "n": 4})' if described.task == "sample" else "model.predict(x)",
        "```",
        f"`x`: {in_markdown(rows.expected)}. It needs mlflow, torch, safetensors and numpy, at the versions in "
        "`requirements.txt`.",
    ]
    return "\n".join(lines) + "\n"


ATTACKS = ("membership_density", "membership_distance", "closest_record", "singling_out", "attribute_inference")
"""Figures of what a model tells of its training examples, 0.5 or 0 (their floors) where it tells nothing."""
SLACK = 0.02
"""How far beyond its floor the lower end of an attack's interval may lie before the card speaks up."""


def _promise(facts: Mapping[str, Any]) -> list[str]:
    """What was promised of the training examples, whatever attack is tried."""
    if not (told := facts.get("privacy")):
        return ["Trained without differential privacy: nothing bounds what it may tell of a training example.", ""]
    return [
        f"Trained under differential privacy: its weights are (ε, δ) = ({told['epsilon']:.4g}, {told['delta']:g}) "
        f"private in each training example ({told['steps']} steps that take an example with probability "
        f"{told['rate']:.4g}, gradients cut to a norm of {told['clip']:g}, noise of {told['noise']:.4g} times that; "
        "Rényi accounting).",
        "Not covered, for they look at the examples as they are: what columns hold (categories, quantiles, extremes, "
        "shares of missing cells), the classes' shares, the curves of the training, and every figure on this page.",
        "",
    ]


def _privacy(results: Mapping[str, Any]) -> list[str]:
    """What attacks learn of training examples, and whether that is more than they learn of unseen ones."""
    found = {name: Metric(**results["metrics"][name]) for name in ATTACKS if name in results.get("metrics", {})}
    lines = ["| attack | value | interval | floor |", "|---|---|---|---|"]
    told = []
    for name, metric in found.items():
        floor = 0.0 if metric.floor is None else metric.floor
        low, high = (metric.value if end is None else end for end in (metric.low, metric.high))
        lines.append(f"| {name} | {metric.value:.3f} | {low:.3f} … {high:.3f} | {floor:.1f} |")
        told += [name] if low > floor + SLACK else []
    if not found:
        return ["What it tells of its training examples was not measured. Take it that it tells all."]
    verdict = (
        f"**It tells training examples from unseen ones**: {', '.join(told)}. Give neither it nor its samples to "
        "people who may not see the training data."
        if told
        else "No attack tried tells training examples from unseen ones. Stronger ones may; this is no proof."
    )
    return [*lines, "", verdict]


def _measured(results: Mapping[str, Any]) -> list[str]:
    """The jobs that the model was measured at."""
    return [name for name, use in USE_CASES.items() if use.metric(results.get("metrics", {}))]


def _splits(manifest: Mapping[str, Any]) -> list[str]:
    sizes = {
        name: sum(shard["rows"] for shard in split["shards"]) for name, split in manifest.get("splits", {}).items()
    }
    return ["- Examples: " + ", ".join(f"{size} {name}" for name, size in sizes.items())] if sizes else []


def _figures(results: Mapping[str, Any]) -> list[str]:
    """A row per figure that decides a job."""
    lines = [
        "| job | figure | value | interval | floor | baseline | unit | better |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, use in USE_CASES.items():
        if (found := use.metric(results.get("metrics", {}))) is None:
            continue
        metric, score = found
        interval = "" if score.low is None or score.high is None else f"{score.low:.4g} … {score.high:.4g}"
        floor, baseline = ("" if value is None else f"{value:.4g}" for value in (score.floor, score.baseline))
        cells = (name, metric, f"{score.value:.4g}", interval, floor, baseline, score.unit, score.better)
        lines.append("| " + " | ".join(cells) + " |")
    return lines if len(lines) > 2 else ["Nothing that decides a job was measured."]
