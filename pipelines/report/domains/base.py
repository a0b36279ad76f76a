"""What the page says of every kind of data in its own words."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Use:
    """How a model is asked for samples in Python and on the command line.

    Arguments:
        library: What is imported, with its short name.
        nothing: An expression for no examples.
        file: Name of a file of samples.
    """

    library: str
    nothing: str
    file: str
