"""What conversions of callers' inputs share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch

Shape = tuple[str, tuple[int, ...]] | list[tuple[str, str]]
"""An array (`dtype` and shape, -1 for the rows) or a table (name and kind of each column)."""


class Rows(NamedTuple):
    """Examples as the model is given them.

    Arguments:
        x: Data-space tensor `[rows, *event]`; missing cells hold 0.
        observed: Which cells are known, `[rows, *event]`.
        restore: Puts back what the model does not see (index, label, further columns) on an answer about these rows.
        given: What is known of these rows that is not in `x`, for `Conversion.write` and `Conversion.obeys`.
        broken: Of each row the rule that it breaks, empty where it breaks none; nothing at all where none is stated.
    """

    x: torch.Tensor
    observed: torch.Tensor
    restore: Callable[[Any], Any] = lambda answer: answer
    given: Any = None
    broken: Sequence[str] = ()


class Given(NamedTuple):
    """What is known of examples that are drawn.

    Attributes:
        x: One example of which only these cells are known, NaN elsewhere.
        known: What is given, for `Conversion.write`.
        label: Number of the class, if one is given.
        fits: Which examples, written with a seed, lie in the ranges and sets that are given; `None` where none are.
    """

    x: torch.Tensor
    known: Any = None
    label: int | None = None
    fits: Callable[[torch.Tensor, int], torch.Tensor] | None = None

    def repeated(self, n: int) -> Any:
        """What is given, once for each of `n` rows."""
        return self.known and {name: np.repeat(cells, n) for name, cells in self.known.items()}


class Conversion(ABC):
    """Between what callers hold and what the model is given, for one kind of data.

    Attributes:
        takes_labels: Whether the label is part of what callers give and get.
    """

    takes_labels: ClassVar[bool] | bool = False

    @property
    @abstractmethod
    def expected(self) -> str:
        """How rows must look, for messages."""

    @property
    def schema(self) -> Shape:
        """What examples are, for the registry."""
        return "float64", (-1, *self.empty(1).shape[1:])

    def example(self) -> Any:
        """One example that may be given, made of the domain alone: no row of the data."""
        return self.write(self.empty(1))

    @abstractmethod
    def read(self, model_input: Any, task: str, *, on_unknown: str = "fail") -> Rows:
        """The caller's rows as tensors.

        Raises:
            ValueError: If they are not what the task takes.
        """

    @abstractmethod
    def write(self, x: torch.Tensor, *, seed: int = 0, given: Any = None) -> Any:
        """Data-space examples as callers get them.

        Arguments:
            x: Examples.
            seed: Selects what is drawn though no model learned it, such as identifiers.
            given: What `read` said is known of these rows; it comes back as it is.
        """

    def obeys(self, x: torch.Tensor, *, seed: int = 0, given: Any = None, alone: bool = False) -> torch.Tensor | None:
        """Which examples obey all that every row of the data does, `[*draws, rows]`; `None` where nothing is stated.

        Arguments:
            x: Examples.
            seed: As for `write`.
            given: Likewise.
            alone: Leave out what several examples obey together: that none repeats what is unique.
        """
        return None

    def rules(self) -> str:
        """What every row obeys, for messages."""
        return ""

    @abstractmethod
    def empty(self, rows: int = 0) -> torch.Tensor:
        """Blank examples, `[rows, *event]`."""

    def labelled(self, examples: Any, labels: torch.Tensor) -> Any:
        """Examples as callers get them, with their labels."""
        raise NotImplementedError  # only asked of those that take labels

    def read_given(self, given: Mapping[str, Any]) -> Given:
        """What is known of examples by the names of cells.

        Raises:
            ValueError: If this kind of data has no named cells.
        """
        raise ValueError(f"`given` names columns of a table; this model's examples are {self.expected}. Leave it out.")

    def described(self) -> dict[str, Any]:
        """What the task `describe` says of this kind of data."""
        return {}


ROUNDS = 32
"""How often examples that break a rule are drawn again."""
CANDIDATES = 512
"""How many are drawn in a round, where fewer rows are left: several for each."""
MOST_EACH = 16
MOST_TRIED = 200
"""How many are drawn for each that shall lie in a range, beyond `ROUNDS` times `CANDIDATES`."""


def redrawn(
    x: torch.Tensor,
    conversion: Conversion,
    again: Callable[[torch.Tensor], torch.Tensor],
    *,
    seed: int = 0,
    given: Any = None,
) -> torch.Tensor:
    """Examples that obey the rules of the data, those that do not drawn again.

    Arguments:
        x: Drawn examples, `[rows, *event]` or `[draws, rows, *event]`; changed in place.
        conversion: Knows the rules.
        again: Draws examples anew for these rows, `[*draws, len(rows), *event]`.
        seed: As for `Conversion.write`.
        given: Likewise.
    Raises:
        ValueError: If some still break a rule after `ROUNDS` rounds.
    """
    rows = torch.zeros(0, dtype=torch.long)
    for _ in range(ROUNDS + 1):
        obeys = conversion.obeys(x, seed=seed, given=given)
        if obeys is None or bool(obeys.all()):
            return x
        rows = torch.nonzero(~obeys.reshape(-1, obeys.shape[-1]).all(0))[:, 0]
        each = max(1, min(MOST_EACH, CANDIDATES // len(rows)))
        tried = rows.repeat_interleave(each)
        fresh = again(tried).to(x)
        known = given and {name: cells[tried.numpy()] for name, cells in given.items()}
        fits = conversion.obeys(fresh, seed=seed, given=known, alone=True)
        assert fits is not None
        fits = fits.reshape(*fits.shape[:-1], len(rows), each)
        chosen = torch.arange(len(rows)) * each + fits.int().argmax(-1)  # the first that fits
        picked = fresh.gather(-2, chosen[..., None].expand(*chosen.shape, x.shape[-1]))
        x[..., rows, :] = torch.where(obeys[..., rows, None], x[..., rows, :], picked)
    raise ValueError(
        f"{len(rows)} of {x.shape[-2]} rows (the first is row {int(rows[0])}) still break a constraint of the data "
        f"after {ROUNDS} rounds of drawing again: {conversion.rules()}. Give other cells, or ask for fewer rows."
    )


def drawn_given(
    given: Given,
    conversion: Conversion,
    draw: Callable[[torch.Tensor, torch.Tensor | None], tuple[torch.Tensor, torch.Tensor | None]],
    labels: torch.Tensor | None,
    n: int,
    *,
    seed: int = 0,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Examples and their labels, some cells given, in the ranges asked for and by the rules of the data.

    Arguments:
        given: What is known of each.
        conversion: Knows the rules.
        draw: The model's draws given examples with gaps and labels (-1: drawn, too).
        labels: Of each, -1 to draw it; `None` for a model without.
        n: How many.
        seed: As for `Conversion.write`.
    Raises:
        ValueError: If too few draws lie in the ranges, or obey the rules.
    """

    def within(labels: torch.Tensor | None, n: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        x, codes = draw(given.x.expand(n, *given.x.shape[1:]).clone(), labels)
        if given.fits is None:
            return x, codes
        left, tried = torch.nonzero(~given.fits(x, seed))[:, 0], n
        while len(left):
            if tried > MOST_TRIED * n + CANDIDATES * ROUNDS:
                raise ValueError(
                    f"{len(left)} of {n} rows do not lie in the ranges of `given` after {tried} draws: the model takes "
                    "them for too rare. Widen them, or ask for fewer rows."
                )
            each = max(1, min(MOST_EACH, CANDIDATES // len(left)))
            who = left.repeat_interleave(each)
            fresh, fresh_codes = draw(
                given.x.expand(len(who), *given.x.shape[1:]).clone(), None if labels is None else labels[who]
            )
            fits = given.fits(fresh, seed).reshape(len(left), each)
            first = torch.arange(len(left)) * each + fits.int().argmax(1)
            hit = fits.any(1)
            x[left[hit]] = fresh[first[hit]]
            if codes is not None and fresh_codes is not None:
                codes[left[hit]] = fresh_codes[first[hit]]
            left, tried = left[~hit], tried + len(who)
        return x, codes

    x, codes = within(labels, n)

    def again(rows: torch.Tensor) -> torch.Tensor:
        return within(None if codes is None else codes[rows], len(rows))[0]

    return redrawn(x, conversion, again, seed=seed, given=given.repeated(n)), codes


def scored(found: np.ndarray, task: str, broken: Sequence[str]) -> np.ndarray:
    """Scores of rows, those of rows that break a rule infinite: their density is 0, nothing is stranger."""
    if not any(broken):
        return found
    return np.where(np.array([bool(text) for text in broken]), np.inf if task == "anomaly_score" else -np.inf, found)


def as_array(model_input: Any, expected: str) -> np.ndarray:
    """The input as an array; `None` (JSON's null) reads as NaN."""
    if model_input is None or hasattr(model_input, "columns") or isinstance(model_input, Mapping):
        raise ValueError(f"expected a numpy array of {expected}, got {type(model_input).__name__}.")
    try:
        array = np.asarray(model_input)
        return array.astype(np.float64) if array.dtype == object else array
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"expected a numpy array of {expected}, got rows of unequal or unknown form.") from error


def refuse(array: np.ndarray, wrong: np.ndarray, rule: str) -> None:
    """Raise a `ValueError` naming the first row where `wrong` holds."""
    if wrong.any():
        row = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise ValueError(f"row {row[0]} has {array[row]!s} at {list(row[1:])}: {rule}.")
