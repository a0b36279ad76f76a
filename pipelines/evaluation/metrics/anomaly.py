"""Are strange examples told from ordinary ones?

Where a dataset keeps known anomalies (a split named `anomaly`), they are used. Otherwise test images
are made strange in ways that leave simple pixel statistics alone, so that brightness or contrast does
not give them away:

| corruption | what is done | what stays |
| --- | --- | --- |
| `quadrants` | the four quarters change places | every pixel value; local texture |
| `cut` | left half of one image, right half of one of another class | each half, whole |
| `shuffled` | a quarter of the pixels change places among themselves | every pixel value |
| `blended` | 60 % of an image plus 40 % of one of another class | mean brightness |

and rows of tables become `mixed`: half of the cells, chosen at random, are another row's. Every column
stays as it is distributed; only how they hang together is broken.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor

from pipelines.evaluation.bootstrap import counts, interval
from pipelines.evaluation.metric import Metric, metric

Images = UInt8[Tensor, "n height width channels"]


def corrupted(x: Images, label: Int[Tensor, " n"], levels: int, seed: int) -> dict[str, Images]:
    """Every corruption of every image.

    Arguments:
        x: Test images.
        label: Their classes, -1 where unknown; partners are of another class where there is one.
        levels: Values a pixel takes.
        seed: Seed of partners and places.
    """
    random = np.random.default_rng([seed, len(x)])
    other = x[_partners(label.numpy(), random)]
    return {
        "quadrants": _quadrants(x),
        "cut": torch.cat([x[:, :, : x.shape[2] // 2], other[:, :, x.shape[2] // 2 :]], 2),
        "shuffled": _shuffled(x, 0.25, random),
        "blended": _blended(x, other, 0.6, levels),
    }


def mixed(x: Float[Tensor, "n columns"], seed: int) -> Float[Tensor, "n columns"]:
    """Rows of which half of the cells are another row's.

    Arguments:
        x: Test rows.
        seed: Seed of partners and cells.
    """
    random = np.random.default_rng([seed, len(x)])
    other = x[_partners(np.full(len(x), -1), random)]
    half = random.random(x.shape).argsort(1) < x.shape[1] // 2
    return torch.where(torch.from_numpy(half), other, x)


def _partners(label: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A row of another class for each row; any other row where all are alike or unknown."""
    rows = np.arange(len(label))
    chosen = (rows + random.integers(1, max(len(rows), 2), len(rows))) % len(rows)
    for _ in range(50):
        alike = (label[chosen] == label) & (label >= 0)
        if not alike.any():
            break
        chosen[alike] = (rows[alike] + random.integers(1, max(len(rows), 2), alike.sum())) % len(rows)
    return chosen


def _quadrants(x: Images) -> Images:
    """Opposite quarters exchanged; a middle row or column of odd sizes stays put."""
    h, w = x.shape[1] // 2, x.shape[2] // 2
    out = x.clone()
    out[:, :h, :w], out[:, -h:, -w:] = x[:, -h:, -w:], x[:, :h, :w]
    out[:, :h, -w:], out[:, -h:, :w] = x[:, -h:, :w], x[:, :h, -w:]
    return out


def _shuffled(x: Images, share: float, random: np.random.Generator) -> Images:
    flat = x.flatten(1, 2).numpy().copy()
    size = flat.shape[1]
    moved = max(int(share * size), 2)
    for row in flat:
        places = random.choice(size, moved, replace=False)
        row[places] = row[np.roll(places, 1)]
    return torch.from_numpy(flat).view_as(x)


def _blended(x: Images, other: Images, weight: float, levels: int) -> Images:
    steps = levels - 1
    mixed = (weight * x.float() + (1 - weight) * other.float()) / 255 * steps
    return (mixed.round() * (255 / steps)).round().to(torch.uint8)


def auroc(ordinary: Float[np.ndarray, " n"], strange: Float[np.ndarray, " m"]) -> float:
    """Probability that a strange example scores above an ordinary one (area under the ROC curve)."""
    return float(roc_auc_score(*_labelled(ordinary, strange)))


def average_precision(ordinary: Float[np.ndarray, " n"], strange: Float[np.ndarray, " m"]) -> float:
    """Area under the precision-recall curve, in steps; its chance level is the share of strange rows."""
    return float(average_precision_score(*_labelled(ordinary, strange)))


def _labelled(ordinary: np.ndarray, strange: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.repeat([0, 1], [len(ordinary), len(strange)]), np.concatenate([ordinary, strange])


def auroc_draws(
    ordinary: Float[np.ndarray, " n"], strange: Float[np.ndarray, " m"], resamples: int, seed: int
) -> Float[np.ndarray, " resamples"]:
    """The area under the ROC curve with the rows of both sides resampled."""
    order = np.sort(ordinary)
    below = np.searchsorted(order, strange, "left").astype(np.int64)
    upto = np.searchsorted(order, strange, "right").astype(np.int64)
    w = counts(len(ordinary), resamples, seed)[:, np.argsort(ordinary, kind="stable")]
    cumulative = np.concatenate([np.zeros((len(w), 1)), np.cumsum(w, 1)], 1)
    wins = (cumulative[:, below] + cumulative[:, upto]) / 2
    return (wins * counts(len(strange), resamples, seed + 1)).sum(1) / (len(ordinary) * len(strange))


def anomaly_metrics(
    ordinary: Float[np.ndarray, " n"], strange: dict[str, Float[np.ndarray, " m"]], *, resamples: int, seed: int
) -> dict[str, Metric]:
    """Detection of each kind of strange example, and the average over kinds.

    Arguments:
        ordinary: Scores of test examples.
        strange: Scores of strange examples, by kind.
        resamples: Bootstrap resamples.
        seed: Their seed.
    """
    values = {kind: auroc(ordinary, scores) for kind, scores in strange.items()}
    draws = {kind: auroc_draws(ordinary, scores, resamples, seed) for kind, scores in strange.items()}
    mean = float(np.mean(list(values.values())))
    spread = interval(mean, np.mean(list(draws.values()), 0))
    precision = float(np.mean([average_precision(ordinary, scores) for scores in strange.values()]))
    found = {
        "anomaly_auroc": metric(value=mean, interval=spread, unit="area", better="higher"),
        "anomaly_ap": metric(value=precision, unit="area", better="higher"),
    }
    for kind, value in values.items():
        spread = interval(value, draws[kind])
        found[f"anomaly_auroc_{kind}"] = metric(value=value, interval=spread, unit="area", better="higher")
    return found
