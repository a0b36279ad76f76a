"""Every metric of tables that needs nothing but samples; floors, baselines and families all go through here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipelines.evaluation.associations import Associations
from pipelines.evaluation.bootstrap import interval
from pipelines.evaluation.marginals import column_distances, distance_draws
from pipelines.evaluation.metric import Metric, metric
from pipelines.evaluation.samples import MOST_PAIRWISE
from pipelines.evaluation.utility import utility_metrics

if TYPE_CHECKING:
    from data.shards import Examples


def row_metrics(
    real: Examples, drawn: Examples, columns: Sequence[Mapping[str, Any]], *, resamples: int, seed: int
) -> dict[str, Metric]:
    """How like real rows samples are, column by column, pair by pair, and to learn from.

    Arguments:
        real: Test rows.
        drawn: Samples with the labels asked for (or real training rows, for the floor).
        columns: The columns of the dataset's domain.
        resamples: Bootstrap resamples; 0 for no intervals.
        seed: Seed of resamples and classifier.
    """
    a, b = real.x.double().numpy(), drawn.x.double().numpy()
    value = float(column_distances(a, b, columns).mean())
    spread = interval(value, distance_draws(a, b, columns, resamples=resamples, seed=seed))
    found = {"column_distance": metric(value=value, interval=spread, unit="share", better="lower")}
    if len(columns) > 1:
        scale, few = Associations(a[:MOST_PAIRWISE], columns), b[:MOST_PAIRWISE]
        value = scale.distance(few)
        spread = interval(value, scale.draws(few, resamples, seed))
        found["association_distance"] = metric(value=value, interval=spread, unit="association", better="lower")
    taught, judged = (b, drawn.label.numpy()), (a, real.label.numpy())
    return found | utility_metrics(taught, judged, columns, resamples=resamples, seed=seed)
