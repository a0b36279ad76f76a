"""Are anomalous examples told from normal ones?

Where a dataset keeps known anomalies (a split named `anomaly`), they are used. Otherwise test images
are made anomalous in ways that leave simple pixel statistics alone, so that brightness or contrast does
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
from jaxtyping import Float
from sklearn.metrics import average_precision_score, roc_auc_score

from pipelines.evaluation.metrics.base import ANOMALIES, Description, Metric, counts, interval

ANOMALY_AUROC = Description(
    name="anomaly_auroc",
    title="AUROC",
    sentence="Chance that an anomaly scores higher than an ordinary example; 0.5 is a guess.",
    group=ANOMALIES,
    unit="area",
    better="higher",
)
ANOMALY_AP = Description(
    name="anomaly_ap",
    title="Average precision",
    sentence="Area under the precision-recall curve of all anomalies together.",
    group=ANOMALIES,
    unit="area",
    better="higher",
)
ANOMALY_AUROC_OF_KIND = Description(
    name="anomaly_auroc_",
    title="AUROC, {}",
    sentence="The same for one kind of anomaly.",
    group=ANOMALIES,
    unit="area",
    better="higher",
    by_kind=True,
)
DESCRIPTIONS = (ANOMALY_AUROC, ANOMALY_AP, ANOMALY_AUROC_OF_KIND)


def auroc(normal: Float[np.ndarray, " n"], anomalous: Float[np.ndarray, " m"]) -> float:
    """Probability that an anomalous example scores above a normal one (area under the ROC curve)."""
    return float(roc_auc_score(*_labelled(normal, anomalous)))


def average_precision(normal: Float[np.ndarray, " n"], anomalous: Float[np.ndarray, " m"]) -> float:
    """Area under the precision-recall curve, in steps; its chance level is the share of anomalous rows."""
    return float(average_precision_score(*_labelled(normal, anomalous)))


def _labelled(normal: np.ndarray, anomalous: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.repeat([0, 1], [len(normal), len(anomalous)]), np.concatenate([normal, anomalous])


def auroc_draws(
    normal: Float[np.ndarray, " n"], anomalous: Float[np.ndarray, " m"], resamples: int, seed: int
) -> Float[np.ndarray, " resamples"]:
    """The area under the ROC curve with the rows of both sides resampled."""
    order = np.sort(normal)
    below = np.searchsorted(order, anomalous, "left").astype(np.int64)
    upto = np.searchsorted(order, anomalous, "right").astype(np.int64)
    w = counts(len(normal), resamples, seed)[:, np.argsort(normal, kind="stable")]
    cumulative = np.concatenate([np.zeros((len(w), 1)), np.cumsum(w, 1)], 1)
    wins = (cumulative[:, below] + cumulative[:, upto]) / 2
    return (wins * counts(len(anomalous), resamples, seed + 1)).sum(1) / (len(normal) * len(anomalous))


def anomaly_metrics(
    normal: Float[np.ndarray, " n"], anomalous: dict[str, Float[np.ndarray, " m"]], *, resamples: int, seed: int
) -> dict[str, Metric]:
    """Detection of each kind of anomaly, and the average over kinds.

    Arguments:
        normal: Scores of test examples.
        anomalous: Scores of anomalous examples, by kind.
        resamples: Bootstrap resamples.
        seed: Their seed.
    """
    values = {kind: auroc(normal, scores) for kind, scores in anomalous.items()}
    draws = {kind: auroc_draws(normal, scores, resamples, seed) for kind, scores in anomalous.items()}
    mean = float(np.mean(list(values.values())))
    spread = interval(mean, np.mean(list(draws.values()), 0))
    precision = float(np.mean([average_precision(normal, scores) for scores in anomalous.values()]))
    found = {
        ANOMALY_AUROC.name: ANOMALY_AUROC.of(mean, spread),
        ANOMALY_AP.name: ANOMALY_AP.of(precision),
    }
    for kind, value in values.items():
        spread = interval(value, draws[kind])
        found[ANOMALY_AUROC_OF_KIND.name + kind] = ANOMALY_AUROC_OF_KIND.of(value, spread)
    return found
