"""A family that answers every task with what it was asked: added to the package that travels with a model.

Each example has twelve values, by their places: 0 and 1 the first values of the row given, 2 the label
(254 for none at all, 255 for any), 3 steps, 4 the number of the draw, 5 twice sigma, 6 a hundred times the
strength, 7 and 8 two random bytes, 9 twice the value given there, 10 how many cells were known, 11 the task.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .capabilities import CAPABILITIES
from .contract import GenerativeModel

TASKS = tuple(CAPABILITIES)
VALUES = 12


class Echo(GenerativeModel, *dict.fromkeys(CAPABILITIES.values())):
    @dataclass(frozen=True)
    class Config:
        pass

    def __init__(self, config, domain, classes):
        super().__init__(domain, classes)

    def objectives(self):
        return ()

    def rows(self, values):
        """Twelve values a row as the domain's examples."""
        return values if self.domain.kind == "table" else values.reshape(*values.shape[:-1], 3, 4, 1).to(torch.uint8)

    def told(self, task, n, x=None, generator=None, label=None, steps=0, sigma=0.0, strength=0.0):
        values = torch.zeros(n, VALUES, dtype=torch.float64)
        if x is not None:
            given = x.reshape(n, VALUES).double()
            values[:, :2], values[:, 9] = given[:, :2], 2 * given[:, 9]
        values[:, 2] = 254 if label is None else torch.where(label < 0, 255, label)
        values[:, 3], values[:, 5], values[:, 6] = steps, 2 * sigma, 100 * strength
        if generator is not None:
            values[:, 7:9] = generator.integers(256, 1, 2).double()
        values[:, 11] = TASKS.index(task)
        return values

    def sample(self, n, label, generator, *, steps=0):
        return self.rows(self.told("sample", n, None, generator, label, steps))

    def log_prob(self, x, generator, *, label=None):
        return x.reshape(len(x), -1)[:, 0].double() + generator.uniform(1) + self.of_label(label)

    @staticmethod
    def of_label(label):
        """A million times the number after the label's: nothing where it is unknown."""
        return 0 if label is None else 1e6 * (label.clamp(min=-1) + 1)

    def anomaly_score(self, x, generator):
        return -(x.reshape(len(x), -1)[:, 0].double() + generator.uniform(1))

    def elbo(self, x, generator, *, samples=1, label=None):
        first = x.reshape(len(x), -1)[:, 0].double()
        return 1000 * samples + first + generator.uniform(1) + self.of_label(label)

    def encode(self, x):
        return x.reshape(len(x), -1).float()

    def decode(self, z):
        return self.rows(z.double().round())

    def reconstruct(self, x, generator):
        return self.rows(self.told("reconstruct", len(x), x, generator))

    def denoise(self, x, sigma):
        return self.rows(self.told("denoise", len(x), x, sigma=sigma))

    def translate(self, x, label, strength, generator, *, steps=0):
        return self.rows(self.told("translate", len(x), x, generator, label, steps, strength=strength))

    def sample_given(self, x, label, generator):  # nor here
        values = self.told("sample", len(x), torch.nan_to_num(x.double()), generator, label)
        values[:, 10] = (~x.isnan()).reshape(len(x), -1).sum(1)
        return self.rows(values), None if label is None else label.clamp(min=0)

    def impute(self, x, observed, generator, *, draws=1):  # given cells are not put back: they tell what was asked
        values = self.told("impute", len(x), torch.nan_to_num(x.double()), generator).repeat(draws, 1, 1)
        values[:, :, 4] = torch.arange(draws)[:, None]
        values[:, :, 10] = observed.reshape(len(x), -1).sum(1)
        return self.rows(values)
