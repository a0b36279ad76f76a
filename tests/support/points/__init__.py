"""A fourth kind of data, added from outside: points of a plane or space, from text files of coordinates.

A small one, but whole: its own reader, domain, evaluation, report and serving, each registered by one line.
"""

from __future__ import annotations

from typing import Any

import data.cards
import data.domains
import data.readers
import models.domains
import pipelines.evaluation.domains
import pipelines.report.domains
import pipelines.serving.domains
from points import domain, evaluation, preparing, reporting, serving

REGISTRATIONS: list[tuple[dict[Any, Any], Any, Any]] = [
    (data.cards.KINDS, "points", preparing.card_faults),
    (data.readers.OPENERS, ("points", "coordinates"), preparing.open_coordinates),
    (data.domains.KINDS, "points", preparing.PointsKind()),
    (models.domains.DOMAINS, "points", domain.Points),
    (pipelines.evaluation.domains.DOMAINS, "points", evaluation.PointsEvaluation),
    (pipelines.report.domains.USES, "points", reporting.use),
    (pipelines.serving.domains.CONVERSIONS, "points", serving.PointRows),
]
"""Table, key and object of each registration."""
