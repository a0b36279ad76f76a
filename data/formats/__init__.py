"""How the cells of a table are written: parsing and writing, each the inverse of the other.

Numbers, dates, times, durations and identifiers are read into what a model learns (numbers and
categories) and written again as the source has them. Pure Python and numpy, without an import from
the rest of this project, so that the folder can travel with a registered model.
"""

from __future__ import annotations

from .columns import SPANS
from .constraints import Constraints
from .durations import DURATIONS, DurationFormat
from .identifiers import IdentifierFormat, whole_type
from .instants import DateTimeFormat
from .month_names import MONTHS as LANGUAGES
from .numbers import SCALES, NumberFormat, is_plain, plain_numbers
from .parts import DAY, UNITS, WEEKDAYS, Instants, InstantsSeen, Part, fitting_parts, instants_of, parts_of
from .rules import parse_rule, written_name
from .several import SeveralFormat, with_numbers
from .source_table import NO_LABEL, PLACEHOLDER, SourceTable, as_text, format_of

__all__ = [
    "DAY",
    "DURATIONS",
    "LANGUAGES",
    "NO_LABEL",
    "PLACEHOLDER",
    "SCALES",
    "SPANS",
    "UNITS",
    "WEEKDAYS",
    "Constraints",
    "DateTimeFormat",
    "DurationFormat",
    "IdentifierFormat",
    "Instants",
    "InstantsSeen",
    "NumberFormat",
    "Part",
    "SeveralFormat",
    "SourceTable",
    "as_text",
    "fitting_parts",
    "format_of",
    "instants_of",
    "is_plain",
    "parse_rule",
    "parts_of",
    "plain_numbers",
    "whole_type",
    "with_numbers",
    "written_name",
]
