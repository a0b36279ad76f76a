r"""Training under differential privacy: batches drawn at random, per-example gradients cut to a norm, and noise.

.. math:: \tilde g = \frac{1}{B} \left( \sum_{i \in \text{batch}} g_i \min(1, C / \lVert g_i \rVert)
    + \sigma C \, N(0, I) \right)

Which examples a step sees and its noise follow from a secret of the training and the step, so that a resumed training
goes on bit for bit; the secret is drawn by the operating system and lies in the checkpoints alone. Noise that followed
from the seed in `params.yaml` could be taken off again by whoever knows it.

References:
    | Deep learning with differential privacy (Abadi et al., 2016), algorithm 1
    | https://arxiv.org/abs/1607.00133
"""

from __future__ import annotations

import math
import secrets
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from models.anomaly import MANY
from models.capabilities import Sampling
from models.contract import Batch, GenerativeModel, Losses, Objective
from models.rng import Streams
from pipelines.training.accountant import epsilon, noise_for
from pipelines.training.context import BatchSource

if TYPE_CHECKING:
    from pipelines.training.config import DivergencePolicy, TrainingConfig
    from pipelines.training.context import WorkerContext

AT_ONCE = 1 << 26
"""Numbers in the per-example gradients that are held together."""


class PrivateSource(BatchSource, Protocol):
    """A source of batches whose training examples can be taken by number."""

    examples: int
    """Training examples."""

    def take(self, ids: Sequence[int]) -> Batch:
        """The training examples of these numbers."""
        ...


class Recorded(Streams):
    """Streams that keep what was drawn from them."""

    def __init__(self, source: Streams) -> None:
        super().__init__(source.generators)
        self.drawn: list[Tensor] = []

    def _concatenated(self, draw: Callable[..., Tensor], shape: Sequence[int]) -> Tensor:
        self.drawn.append(super()._concatenated(draw, shape))
        return self.drawn[-1]


class Replayed(Streams):
    """Streams that give what was drawn before, in the same order."""

    def __init__(self, drawn: Sequence[Tensor], device: torch.device) -> None:
        super().__init__([torch.Generator(device)])
        self.left = list(drawn)

    def _concatenated(self, draw: Callable[..., Tensor], shape: Sequence[int]) -> Tensor:
        return self.left.pop(0)


class PrivateGradients:
    """Takes the place of batches and gradients in a training under differential privacy.

    Arguments:
        model: What is trained.
        source: Where its examples come from.
        settings: Of the training, with `privacy`.
        context: The worker.
        policy: What is done about divergence.
    Raises:
        ValueError: If it cannot be trained so.
    Attributes:
        secret: What batches and noise follow from, beside the step.
    """

    def __init__(
        self,
        model: GenerativeModel,
        source: BatchSource,
        settings: TrainingConfig,
        context: WorkerContext,
        policy: DivergencePolicy,
    ) -> None:
        self.model, self.settings, self.device = model, settings, context.device
        self.source: PrivateSource = source  # type: ignore[assignment]
        if not all(objective.per_example for objective in model.objectives()):
            raise ValueError(
                f"training.privacy: {type(model).__name__} cannot be trained under differential privacy; "
                "set privacy.epsilon to 0, or train the family flow on a table (flow.architecture: autoregressive)"
            )
        if context.world_size > 1:
            raise ValueError(
                f"training.privacy works on one worker, got {context.world_size}; set train.workers to 1 in params.yaml"
            )
        if policy.rollback:
            raise ValueError("training.privacy counts every step: set train.on_divergence to stop in params.yaml")
        told = guarantee(settings, self.source.examples)
        self.rate, self.noise = told["rate"], told["noise"]
        self.secret = secrets.token_hex(16)

    def batch(self, step: int) -> Batch:
        """The step's examples, each taken with the same probability whatever the others; perhaps none."""
        digits = [int(self.secret[i : i + 8], 16) for i in range(0, len(self.secret), 8)]
        random = np.random.default_rng([*digits, step])
        size = random.binomial(self.source.examples, self.rate)
        ids = random.choice(self.source.examples, size, replace=False, shuffle=False)
        return self.source.take(np.sort(ids).tolist()).to(self.device)

    def accumulate(self, objective: Objective, batch: Batch, step: int) -> Losses:
        """Leave the noisy mean of the cut gradients in the parameters' `grad`.

        What losses draw (orders of columns, hidden labels) is secret, too: it goes by the place in the batch, which one
        example more or less changes for others.

        Arguments:
            objective: What is minimized.
            batch: The step's examples.
            step: Number of the step.
        Returns:
            The losses of the examples; of an empty batch a zero.
        """
        parameters = {name: p for name, p in objective.named_parameters() if p.requires_grad}
        total = {name: torch.zeros_like(p) for name, p in parameters.items()}
        losses = Losses(torch.zeros(1, device=self.device))
        if len(batch):
            streams = Streams.seeded(self.secret, step, objective.name, "losses", device=self.device)
            losses = self._add_gradients(objective, batch, total, streams)
        noise = Streams.seeded(self.secret, step, objective.name, "noise", device=self.device)
        clip, expected = self.settings.privacy.clip, self.settings.batch_size
        for name, parameter in parameters.items():
            drawn = noise.normal(max(parameter.numel(), 1)).view_as(parameter).to(parameter.dtype)
            parameter.grad = (total[name] + self.noise * clip * drawn) / expected
        return losses

    def _add_gradients(
        self, objective: Objective, batch: Batch, total: Mapping[str, Tensor], streams: Streams
    ) -> Losses:
        """Add each example's gradient, cut to a norm of at most `clip`; all see the noise they would see together."""
        recorded = Recorded(streams)
        with torch.no_grad():
            losses = objective(batch, recorded)
        if wrong := [tuple(t.shape) for t in recorded.drawn if len(t) != len(batch)]:
            raise ValueError(f"{objective.name}: draws must be of one example each, got {wrong} for {len(batch)}")
        given = {name: getattr(batch, name) for name in ("x", "label", "observed") if getattr(batch, name) is not None}

        def loss(parameters: Mapping[str, Tensor], example: Mapping[str, Tensor], drawn: Sequence[Tensor]) -> Tensor:
            alone = replace(batch, **{name: value[None] for name, value in example.items()})
            noise = Replayed([value[None] for value in drawn], streams.device)
            return functional_call(objective, parameters, (alone, noise)).total[0]  # type: ignore[arg-type]

        weights = {name: p.detach() for name, p in objective.named_parameters()}
        chunk = max(1, AT_ONCE // sum(p.numel() for p in total.values()))
        for start in range(0, len(batch), chunk):
            here = slice(start, start + chunk)
            example = {name: value[here] for name, value in given.items()}
            with sdpa_kernel(SDPBackend.MATH), self.model.domain.unchecked(), warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".*(non-contiguous|batching rule).*")
                each = vmap(grad(loss), in_dims=(None, 0, 0), randomness="error")(
                    weights, example, [value[here] for value in recorded.drawn]
                )
            squares = [each[name].flatten(1).square().sum(1) for name in total]
            norm = torch.stack(squares).sum(0).sqrt()
            factor = (self.settings.privacy.clip / norm.clamp(min=1e-12)).clamp(max=1.0)
            for name, summed in total.items():
                summed += torch.einsum("n,n...->...", factor, each[name])
        return losses

    def reference(self, average: GenerativeModel, seed: int) -> Batch:
        """Samples of the averaged model, for what is fitted after training: what the weights say costs no privacy."""
        assert isinstance(average, Sampling)
        n = min(MANY, self.source.examples)
        streams = Streams.seeded(seed, "reference", device=self.device)
        with torch.no_grad():
            label = average.draw_labels(n, None, streams)
            return Batch(average.sample(n, label, streams), label)


def guarantee(settings: TrainingConfig, examples: int) -> dict[str, Any]:
    """What a training under differential privacy promises, and by what.

    Arguments:
        settings: Of the training, with `privacy`.
        examples: Training examples.
    Returns:
        `epsilon`, `delta`, and the `noise`, `clip`, sampling `rate` and `steps` that they follow from.
    Raises:
        ValueError: If they mean nothing for so few examples.
    """
    privacy, rate = settings.privacy, min(1.0, settings.batch_size / examples)
    if privacy.delta * examples >= 1:
        raise ValueError(
            f"training.privacy.delta must be below one over the {examples} training examples, got {privacy.delta}"
        )
    noise = noise_for(privacy.epsilon, rate, settings.total_steps, privacy.delta)
    spent = epsilon(rate, noise, settings.total_steps, privacy.delta)
    return {
        "epsilon": math.ceil(spent * 1e4) / 1e4,
        "delta": privacy.delta,
        "noise": noise,
        "clip": privacy.clip,
        "rate": rate,
        "steps": settings.total_steps,
    }
