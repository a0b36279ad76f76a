"""A Gaussian per class on leading principal components: what a generator of large images starts to draw from."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..mixture import GaussianMixture
from ..networks.principal import PrincipalComponents
from ..rng import Streams
from ..shapes import Float, Int


class ClassGaussians(nn.Module):
    """Noise and label to an example of the class's Gaussian, of all examples' for an unknown label.

    Arguments:
        shape: Of an example.
        count: Components.
        classes: Of the labels; 0 for none.
    """

    def __init__(self, shape: tuple[int, ...], count: int, classes: int) -> None:
        super().__init__()
        self.components = PrincipalComponents(shape, count)
        self.classes, dim = classes, self.components.count
        self.mean: Tensor  # a row per class, the last one for unknown labels
        self.root: Tensor
        self.register_buffer("mean", torch.zeros(classes + 1, dim))
        self.register_buffer("root", torch.eye(dim).repeat(classes + 1, 1, 1))

    @torch.no_grad()
    def measure(self, y: Float[Tensor, "n *event"], label: Int[Tensor, " n"] | None, generator: Streams) -> None:
        """Fit the Gaussians to examples, of which the components were measured."""
        coordinates = self.components.coordinates(y)
        for classes in (0, self.classes) if self.classes else (0,):
            mixture = GaussianMixture(self.components.count, classes, 1).to(y.device)
            mixture.fit(coordinates, label if classes else None, generator)
            rows = slice(0, classes) if classes else slice(self.classes, None)
            self.mean[rows], self.root[rows] = mixture.mean[:, 0], mixture.scale[:, 0]

    def forward(
        self, noise: Float[Tensor, "batch noise"], label: Int[Tensor, " batch"] | None
    ) -> Float[Tensor, "batch *event"]:
        """An example; the first numbers of the noise are used."""
        group = torch.full((len(noise),), self.classes, device=noise.device)
        if label is not None:
            group = torch.where(label < 0, self.classes, label)
        with torch.autocast(noise.device.type, enabled=False):
            drawn = noise[:, : self.components.count].to(self.root.dtype)
            return self.components.example(self.mean[group] + torch.einsum("bcd,bd->bc", self.root[group], drawn))
