"""Can it be told who was in the training data? Attacks that need nothing but the model, or nothing but its samples.

An attacker holds examples of which some were trained on, and ranks them: by the nearness of the nearest sample, or by
the model's density (its bound, where it has no density). The area under the ROC curve is the chance that a training
example stands before an unseen one: 0.5 where nothing is told, 1 where every training example is. No shadow models are
trained, so these are lower bounds of what a stronger attacker might find.

References:
    | Privacy risk in machine learning: analyzing the connection to overfitting (Yeom et al., 2018), section 3
    | https://arxiv.org/abs/1709.01604
    | GAN-Leaks: a taxonomy of membership inference attacks (Chen et al., 2020), section 4, full black-box
    | https://arxiv.org/abs/1909.03935
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from pipelines.evaluation.metrics.anomaly import auroc, auroc_draws
from pipelines.evaluation.metrics.attacks import FEWEST
from pipelines.evaluation.metrics.base import MOST_PAIRWISE, PRIVACY, Description, Metric, interval
from pipelines.evaluation.metrics.memorization import nearest_training_rows
from pipelines.evaluation.metrics.samples import Findings, SampleSet, too_few

MEMBERSHIP_DISTANCE = Description(
    name="membership_distance",
    title="Membership by distance, AUROC",
    sentence="Chance that a training example lies nearer to a sample than an unseen one does; 0.5 tells nothing.",
    group=PRIVACY,
    unit="area",
    better="lower",
)
MEMBERSHIP_DENSITY = Description(
    name="membership_density",
    title="Membership by density, AUROC",
    sentence="Chance that the model finds a training example more probable than an unseen one; 0.5 tells nothing.",
    group=PRIVACY,
    unit="area",
    better="lower",
)
DESCRIPTIONS = (MEMBERSHIP_DISTANCE, MEMBERSHIP_DENSITY)


def measure(samples: SampleSet) -> Findings:
    """How well training examples are told from test rows by their distance to the nearest sample."""
    train, test = samples.train.x[:MOST_PAIRWISE], samples.test.x[:MOST_PAIRWISE]
    if min(len(train), len(test)) < FEWEST:
        return Findings(metrics={}, left_out={MEMBERSHIP_DISTANCE.name: too_few(FEWEST, samples)})
    near = (-nearest_training_rows(rows, samples.drawn, samples.inputs).distance for rows in (train, test))
    return Findings(metrics={MEMBERSHIP_DISTANCE.name: told(MEMBERSHIP_DISTANCE, *near, **samples.options)})


def density_attack(
    training: Float[np.ndarray, " n"], holdout: Float[np.ndarray, " m"], *, resamples: int, seed: int
) -> dict[str, Metric]:
    """How well training examples are told from unseen ones by their log-probability; nothing of too few.

    Arguments:
        training: Log-probabilities of training examples, or bounds of them.
        holdout: The same of unseen ones.
        resamples: Bootstrap resamples.
        seed: Their seed.
    """
    if min(len(training), len(holdout)) < FEWEST:
        return {}
    return {MEMBERSHIP_DENSITY.name: told(MEMBERSHIP_DENSITY, training, holdout, resamples=resamples, seed=seed)}


def told(
    description: Description,
    training: Float[np.ndarray, " n"],
    holdout: Float[np.ndarray, " m"],
    *,
    resamples: int,
    seed: int,
) -> Metric:
    """The area under the ROC curve by which scores tell training examples from others, beside its floor."""
    value = auroc(holdout, training)
    spread = interval(value, auroc_draws(holdout, training, resamples, seed))
    return description.of(value, spread).beside(floor=0.5)
