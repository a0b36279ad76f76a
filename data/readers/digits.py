"""The handwritten digits that ship with scikit-learn."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from data.cards import Card
from data.readers.base import UNPUBLISHED, IngestReport, Mapper, Reader
from data.readers.image_arrays import Part, array_reader


def open_digits(card: Card, path: Path, report: IngestReport, mapper: Mapper) -> Reader:
    """scikit-learn's handwritten digits.

    Raises:
        ValueError: If the data that scikit-learn ships is not what the card says.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    counts, target = digits.images.astype(np.uint8), digits.target.astype(np.int64)
    found = hashlib.sha256(counts.tobytes() + target.astype(np.uint8).tobytes()).hexdigest()
    if card.source.sha256 and card.source.sha256 != found:
        raise ValueError(
            f"scikit-learn's digits have SHA-256 {found}, the card {card.name!r} says {card.source.sha256}. "
            "Install the pinned scikit-learn, or fix source.sha256."
        )
    x = np.round(counts * (255 / 16)).astype(np.uint8)
    part = Part(name="digits", split=UNPUBLISHED, shape=x.shape, blocks=lambda: iter([x]), labels=target)
    return array_reader(card, [part], report)
