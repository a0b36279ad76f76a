"""Known rows in place of a model's samples."""

from __future__ import annotations

from jaxtyping import Int, Num
from torch import Tensor

from models.capabilities import Sampling
from models.rng import Streams


class ReplayedRows(Sampling):
    """Draws known rows, the first of them first, with the labels they have: real rows, or samples drawn before.

    Arguments:
        x: The rows in data space.
        label: Their labels, -1 where unknown; `None` where the data have none.
    """

    def __init__(self, x: Num[Tensor, "n *data"], label: Int[Tensor, " n"] | None) -> None:
        self.x, self.label = x, label

    def sample(
        self, n: int, label: Int[Tensor, " n"] | None, generator: Streams, *, steps: int = 0
    ) -> Num[Tensor, "n *data"]:
        """The first `n` rows, whatever label is asked for.

        Raises:
            ValueError: If there are fewer.
        """
        if n > len(self.x):
            raise ValueError(f"{n} rows were asked for, there are {len(self.x)} to replay")
        return self.x[:n]
