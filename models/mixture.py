"""A Gaussian mixture per class, fitted by expectation maximization: the density of latent codes."""

from __future__ import annotations

import copy
import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .rng import Streams
from .shapes import Float, Int


class Shrinkage(NamedTuple):
    """How covariances are drawn towards a common one.

    Arguments:
        codes_per_dimension: Weight of the common covariance, in codes per dimension.
        tied: Towards the covariance within classes; else towards independent dimensions of a tenth of the variance.
        single: Whether a class's components are one.
    """

    codes_per_dimension: float
    tied: bool = False
    single: bool = False


SHRINKAGES = (
    Shrinkage(0.1),
    Shrinkage(1.0, tied=True),
    Shrinkage(1.0, tied=True, single=True),
    Shrinkage(5.0, tied=True, single=True),
    Shrinkage(1000.0, tied=True, single=True),
)
"""From components of their own to one covariance for all classes, among which codes held out choose."""


class GaussianMixture(nn.Module):
    r"""One full-covariance Gaussian mixture per class; one for all where there are no labels.

    .. math:: p(z \mid y) = \sum_k \pi_{yk} \, \mathcal{N}(z; \mu_{yk}, \Sigma_{yk})

    Arguments:
        dim: Length of a code.
        classes: Number of classes; 0 for unlabelled codes.
        components: Gaussians per class.

    References:
        | From variational to deterministic autoencoders (Ghosh et al., 2020), section 4
        | https://arxiv.org/abs/1903.12436
    """

    def __init__(self, dim: int, classes: int, components: int) -> None:
        super().__init__()
        groups = max(classes, 1)
        self.log_weight: Tensor
        self.mean: Tensor
        self.scale: Tensor
        self.register_buffer("log_weight", torch.full((groups, components), -math.log(components)))
        self.register_buffer("mean", torch.zeros(groups, components, dim))
        self.register_buffer("scale", torch.eye(dim).expand(groups, components, dim, dim).clone())

    @torch.no_grad()
    def fit(
        self,
        z: Float[Tensor, "n dim"],
        label: Int[Tensor, " n"] | None,
        generator: Streams,
        steps: int = 50,
        *,
        copies: int = 1,
    ) -> None:
        """Fit every class's mixture to its codes; rows with unknown labels are ignored.

        Of fewer than a hundred codes per dimension of each component, a fifth is held out to choose how far
        covariances are drawn towards what the classes have in common.

        Arguments:
            z: Codes.
            label: Of each.
            generator: Source of randomness.
            steps: Of expectation maximization.
            copies: Draws of every example's code, one whole set behind the other.
        """
        if len(self.mean) == 1:
            label = None
        overall = _covariance(z) if len(z) > 1 else torch.eye(z.shape[1], device=z.device, dtype=z.dtype)
        targets = {False: torch.diag(0.1 * overall.diagonal().clamp(min=1e-8)), True: _within(z, label, len(self.mean))}
        shrinkage = SHRINKAGES[0]
        components = self.mean.shape[0] * self.mean.shape[1]
        if len(z) // copies >= 20 and len(z) < 100 * copies * components * z.shape[1]:
            chance = torch.rand(len(z) // copies, generator=torch.Generator(z.device).manual_seed(0), device=z.device)
            held_out = (chance < 0.2).repeat(copies)
            scores = [self._held_out(z, label, held_out, overall, targets[s.tied], s) for s in SHRINKAGES]
            shrinkage = SHRINKAGES[int(torch.stack(scores).argmax())]
        self._fit(z, label, overall, targets[shrinkage.tied], shrinkage, generator.generators[0], steps)

    def _held_out(
        self,
        z: Tensor,
        label: Tensor | None,
        held_out: Tensor,
        overall: Tensor,
        target: Tensor,
        shrinkage: Shrinkage,
    ) -> Float[Tensor, ""]:
        """Mean log-density of the codes held out under a mixture fitted to the others."""
        trial, source = copy.deepcopy(self), torch.Generator(z.device).manual_seed(0)
        trial._fit(
            z[~held_out], None if label is None else label[~held_out], overall, target, shrinkage, source, steps=10
        )
        sides = [held_out] if label is None else [held_out & (label == group) for group in range(len(self.mean))]
        densities = [trial._group_log_prob(z[rows], group) for group, rows in enumerate(sides) if rows.any()]
        return torch.cat(densities).mean() if densities else z.new_zeros(())

    def _fit(
        self,
        z: Tensor,
        label: Tensor | None,
        overall: Tensor,
        target: Tensor,
        shrinkage: Shrinkage,
        source: torch.Generator,
        steps: int,
    ) -> None:
        for group in range(len(self.mean)):
            members = z if label is None else z[label == group]
            if len(members) < 2:
                self.mean[group] = z.mean(0)
                self.scale[group] = _cholesky(overall)
                continue
            self._fit_group(group, members, target, shrinkage, source, steps)

    def _fit_group(
        self, group: int, z: Tensor, target: Tensor, shrinkage: Shrinkage, source: torch.Generator, steps: int
    ) -> None:
        n, dim = z.shape
        components = self.mean.shape[1]
        strength = shrinkage.codes_per_dimension * dim
        first = torch.randperm(n, generator=source, device=z.device)[:components]
        self.mean[group] = z[first.repeat(components)[:components]]
        self.scale[group] = _cholesky(_covariance(z) + target)
        self.log_weight[group] = -math.log(components)
        for _ in range(steps if components > 1 and not shrinkage.single else 1):
            responsibility = (self._component_log_prob(z, group) + self.log_weight[group]).softmax(1)  # [n, k]
            if shrinkage.single:
                responsibility = torch.full_like(responsibility, 1 / components)
            count = responsibility.sum(0) + 1e-6
            self.log_weight[group] = (count / count.sum()).log()
            self.mean[group] = responsibility.T @ z / count[:, None]
            for k in range(components):
                centred = z - self.mean[group, k]
                scatter = (centred * responsibility[:, k, None]).T @ centred
                pull = strength / components if shrinkage.single else strength
                self.scale[group, k] = _cholesky((scatter + pull * target) / (count[k] + pull))

    def _component_log_prob(self, z: Float[Tensor, "n dim"], group: int) -> Float[Tensor, "n components"]:
        mean, scale = self.mean[group], self.scale[group]
        offset = (z - mean[:, None]).transpose(1, 2)  # [k, dim, n]
        squares = torch.linalg.solve_triangular(scale, offset, upper=False).square().sum(1)
        log_det = scale.diagonal(dim1=1, dim2=2).log().sum(1)
        return (-0.5 * (squares + z.shape[1] * math.log(2 * math.pi)) - log_det[:, None]).T

    def _group_log_prob(self, z: Float[Tensor, "n dim"], group: int) -> Float[Tensor, " n"]:
        return (self._component_log_prob(z, group) + self.log_weight[group]).logsumexp(1)

    def conditional_log_prob(self, z: Float[Tensor, "n dim"]) -> Float[Tensor, "n groups"]:
        """Log-density of each code under each class, in nats."""
        return torch.stack([self._group_log_prob(z, group) for group in range(len(self.mean))], dim=1)

    def joint_log_prob(
        self, z: Float[Tensor, "n dim"], frequencies: Float[Tensor, " classes"]
    ) -> Float[Tensor, "n groups"]:
        """Log-density of each code together with each class, in nats."""
        conditional = self.conditional_log_prob(z)
        return conditional if len(self.mean) == 1 else conditional + frequencies.log()

    def log_prob(
        self, z: Float[Tensor, "n dim"], label: Int[Tensor, " n"] | None, frequencies: Float[Tensor, " groups"]
    ) -> Float[Tensor, " n"]:
        """Log-density in nats: of the class where known, else marginal over classes."""
        conditional = self.conditional_log_prob(z)
        if len(self.mean) == 1:
            return conditional[:, 0]
        marginal = (conditional + frequencies.log()).logsumexp(1)
        if label is None:
            return marginal
        known = conditional.gather(1, label.clamp(min=0)[:, None])[:, 0]
        return torch.where(label < 0, marginal, known)

    def sample(self, n: int, label: Int[Tensor, " n"] | None, generator: Streams) -> Float[Tensor, "n dim"]:
        """A code per label."""
        group = torch.zeros(n, dtype=torch.long, device=self.mean.device) if label is None else label
        edges = self.log_weight.exp().cumsum(1)[group]
        component = (generator.uniform(n)[:, None] * edges[:, -1:] > edges).sum(1).clamp(max=edges.shape[1] - 1)
        noise = generator.normal(n, self.mean.shape[2])
        return self.mean[group, component] + torch.einsum("nij,nj->ni", self.scale[group, component], noise)

    def moments(self) -> tuple[Float[Tensor, "groups dim"], Float[Tensor, "groups dim dim"]]:
        """Mean of each class's codes and the symmetric root of their covariance."""
        weight = self.log_weight.exp()[..., None]
        mean = (weight * self.mean).sum(1)
        apart = self.mean - mean[:, None]
        within, between = self.scale @ self.scale.mT, apart[..., None] * apart[..., None, :]
        values, vectors = torch.linalg.eigh((weight[..., None] * (within + between)).sum(1))
        least = 1e-6 * values[:, -1:].clamp(min=1e-12)
        return mean, vectors @ torch.diag_embed(torch.maximum(values, least).sqrt()) @ vectors.mT

    def transported(
        self,
        z: Float[Tensor, "n dim"],
        label: Int[Tensor, " n"] | None,
        frequencies: Float[Tensor, " groups"],
        strength: float,
        generator: Streams,
    ) -> Float[Tensor, "n dim"]:
        r"""Codes moved to another class: their place among their own class's codes taken over into it.

        .. math:: z' = m' + R' \left( \sqrt{1 - s^2} \, R^{-1} (z - m) + s \, \epsilon \right)

        with mean :math:`m` and symmetric root :math:`R` of the covariance of the likeliest class, and
        :math:`m', R'` of the class wanted.

        Arguments:
            z: Codes.
            label: Class wanted, -1 or `None` to stay in the class.
            frequencies: Of the classes.
            strength: :math:`s`, from 0 to 1 (a fresh draw from the class's Gaussian).
            generator: Source of randomness.
        """
        mean, root = self.moments()
        each = self.conditional_log_prob(z)
        own = (each if len(mean) == 1 else each + frequencies.log()).argmax(1)
        wanted = own if label is None else torch.where(label < 0, own, label)
        place = torch.linalg.solve(root[own], z - mean[own])
        place = math.sqrt(1 - strength**2) * place + strength * generator.normal(*z.shape)
        return mean[wanted] + torch.einsum("nij,nj->ni", root[wanted], place)


def _covariance(z: Float[Tensor, "n dim"]) -> Float[Tensor, "dim dim"]:
    return torch.cov(z.T).reshape(z.shape[1], z.shape[1])  # torch makes a number of it if dim is 1


def _within(z: Float[Tensor, "n dim"], label: Int[Tensor, " n"] | None, groups: int) -> Float[Tensor, "dim dim"]:
    """Covariance within classes, the same for all; of all codes where there are no labels."""
    group = torch.zeros(len(z), dtype=torch.long, device=z.device) if label is None else label
    known = z[group >= 0]
    group = group[group >= 0]
    count = torch.bincount(group, minlength=groups)
    mean = known.new_zeros(groups, z.shape[1]).index_add_(0, group, known) / count.clamp(min=1)[:, None]
    centred = known - mean[group]
    return centred.T @ centred / max(len(known) - int((count > 0).sum()), 1)


def _cholesky(covariance: Float[Tensor, "dim dim"]) -> Float[Tensor, "dim dim"]:
    """Cholesky factor, with as little added to the diagonal as makes it exist."""
    jitter = 1e-6 * covariance.diagonal().mean().clamp(min=1e-8)
    for _ in range(12):
        factor, failed = torch.linalg.cholesky_ex(
            covariance + jitter * torch.eye(len(covariance), device=covariance.device)
        )
        if not failed:
            return factor
        jitter = jitter * 10
    raise ValueError("the covariance of the codes is not finite; the encoder has diverged (lower the learning rate)")
