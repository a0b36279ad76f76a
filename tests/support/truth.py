r"""Data whose truth is known: draws from mixtures with labels, and everything that can be asked of them in closed form.

`Rows` is a table with correlated numbers, heavy tails, counts, categories of which one determines
another, and gaps; `Patterns` are small grey images. Both are mixtures of classes of known shares,

.. math:: p(x) = \sum_c \pi_c \, p(x \mid c),

within which the columns (all but one pair) and the pixels are independent, so that marginals,
conditionals, posteriors and expectations are finite sums. numpy, scipy and pandas only.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from scipy import stats
from scipy.special import logsumexp, softmax

SHARES = np.array([0.5, 0.3, 0.2])
"""Of the classes: unequal, so that leaving them out of a density or a posterior shows."""

GAPS = 0.06
"""Share of missing cells in the source of rows, in the columns that have gaps."""

NAMES = ("basic", "plus", "pro")
"""Of the classes, in the order of their codes."""


def classes(n: int, random: np.random.Generator, label: int | None = None) -> np.ndarray:
    """Class of each of `n` draws: `label`, or by their shares."""
    return random.choice(len(SHARES), n, p=SHARES) if label is None else np.full(n, label)


def auroc(scores: np.ndarray, strange: np.ndarray) -> float:
    """Probability that a strange example scores above a normal one (Mann-Whitney)."""
    order = stats.rankdata(scores)
    m, n = int(strange.sum()), int((~strange).sum())
    return float((order[strange].sum() - m * (m + 1) / 2) / (m * n))


@dataclass(frozen=True)
class Rows:
    """A table of customers: `length` and `mass` Gaussian and correlated, `spent` Student-t with three degrees of
    freedom, `visits` Poisson, `city` and `member` categorical, `country` a function of `city`."""

    lengths = np.array([10.0, 14.0, 18.0])
    length_sd = 1.5
    slope = 2.0
    """`mass` is `slope * length + offset`, with noise of standard deviation `mass_sd`."""
    offsets = np.array([5.0, 0.0, -12.0])
    mass_sd = 2.0
    spent_at = np.array([20.0, 35.0, 60.0])
    spent_scale = np.array([3.0, 5.0, 8.0])
    freedom = 3
    visits = np.array([2.0, 5.0, 9.0])
    cities = ("Bergen", "New York", "Oslo", "Rome")
    countries = ("Norway", "USA", "Norway", "Italy")
    """Of each city."""
    city_shares = np.array([[0.6, 0.1, 0.2, 0.1], [0.1, 0.5, 0.3, 0.1], [0.1, 0.2, 0.1, 0.6]])
    member_shares = np.array([0.2, 0.5, 0.8])
    columns = ("length", "mass", "spent", "visits", "city", "country", "member")
    gaps = ("mass", "spent", "visits", "city", "country")
    """Columns with missing cells."""

    def draw(self, n: int, random: np.random.Generator, label: int | None = None) -> tuple[pd.DataFrame, np.ndarray]:
        """Complete rows and their classes."""
        c = classes(n, random, label)
        length = random.normal(self.lengths[c], self.length_sd)
        mass = random.normal(self.slope * length + self.offsets[c], self.mass_sd)
        spent = self.spent_at[c] + self.spent_scale[c] * random.standard_t(self.freedom, n)
        city = np.array([random.choice(len(self.cities), p=self.city_shares[k]) for k in c], int)
        return (
            pd.DataFrame(
                {
                    "length": length,
                    "mass": mass,
                    "spent": spent,
                    "visits": random.poisson(self.visits[c]),
                    "city": np.array(self.cities, object)[city],
                    "country": np.array(self.countries, object)[city],
                    "member": random.random(n) < self.member_shares[c],
                }
            ),
            c,
        )

    def with_gaps(self, rows: pd.DataFrame, share: float, random: np.random.Generator) -> pd.DataFrame:
        """Rows with a share of their cells missing, whatever they hold (in the columns that have gaps)."""
        rows = rows.astype({"visits": "Int64"})
        for name in self.gaps:
            rows.loc[random.random(len(rows)) < share, name] = None
        return rows

    def shuffled(self, n: int, random: np.random.Generator) -> pd.DataFrame:
        """Anomalies: every column alone is as in the data, but each from a row of its own."""
        drawn = [self.draw(n, random)[0] for _ in self.columns]
        return pd.DataFrame({name: rows[name] for name, rows in zip(self.columns, drawn, strict=True)})

    def _terms(self, rows: pd.DataFrame) -> dict[str, np.ndarray]:
        """Log-likelihood of each independent part of a row under each class, `[n, classes]`; 0 where all is missing."""

        def number(name: str) -> np.ndarray:
            return rows[name].astype("Float64").to_numpy(float, na_value=np.nan)[:, None]

        length, mass, spent, visits = (number(name) for name in ("length", "mass", "spent", "visits"))
        spread = np.hypot(self.slope * self.length_sd, self.mass_sd)
        alone = stats.norm.logpdf(mass, self.slope * self.lengths + self.offsets, spread)
        given = stats.norm.logpdf(mass, self.slope * length + self.offsets, self.mass_sd)
        cities = np.array(self.cities, object)[None]
        countries = np.array(self.countries, object)[None]
        city, country = rows["city"].to_numpy(object)[:, None], rows["country"].to_numpy(object)[:, None]
        possible = (pd.isna(city) | (city == cities)) & (pd.isna(country) | (country == countries))
        with np.errstate(divide="ignore"):
            place = np.log(possible.astype(float) @ self.city_shares.T)
        yes = rows["member"].astype("boolean").astype("Float64").to_numpy(float, na_value=np.nan)[:, None]
        terms = {
            "length": stats.norm.logpdf(length, self.lengths, self.length_sd),
            "mass": np.where(np.isnan(length), alone, given),
            "spent": stats.t.logpdf(spent, self.freedom, self.spent_at, self.spent_scale),
            "visits": stats.poisson.logpmf(visits, self.visits),
            "place": place,
            "member": np.log(np.where(yes == 1, self.member_shares, 1 - self.member_shares)) + 0 * yes,
        }
        return {name: np.where(np.isnan(term), 0, term) for name, term in terms.items()}

    def joint(self, rows: pd.DataFrame) -> np.ndarray:
        """Log-density of the known cells together with each class, `[n, classes]`, nats."""
        return np.log(SHARES) + sum(self._terms(rows).values())

    def log_prob(self, rows: pd.DataFrame) -> np.ndarray:
        """Log-density of the known cells (continuous in the data's units, others their probability), `[n]`, nats."""
        return logsumexp(self.joint(rows), axis=1)

    def posterior(self, rows: pd.DataFrame) -> np.ndarray:
        """Probability of each class given the known cells, `[n, classes]`."""
        return softmax(self.joint(rows), axis=1)

    def ratio(self, rows: pd.DataFrame) -> np.ndarray:
        """The best score there is for telling `shuffled` rows: log of their density over that of the data."""
        alone = sum(logsumexp(np.log(SHARES) + term, axis=1) for term in self._terms(self._apart(rows)).values())
        mass = logsumexp(np.log(SHARES) + self._terms(rows[["mass"]].reindex(columns=self.columns))["mass"], axis=1)
        country = np.log([self._country_share(name) for name in rows["country"]])
        return alone + mass + country - self.log_prob(rows)

    def _apart(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Without the two columns that are not independent within a class."""
        return rows.assign(mass=np.nan, country=None)

    def _country_share(self, country: str) -> float:
        of_class = self.city_shares @ (np.array(self.countries) == country)
        return float(SHARES @ of_class)

    def mass_given(self, rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance of `mass` given a row's other known cells, of which `length` must be one."""
        weight = self.posterior(rows.assign(mass=np.nan))
        means = self.slope * rows["length"].to_numpy(float)[:, None] + self.offsets
        mean = (weight * means).sum(1)
        return mean, self.mass_sd**2 + (weight * (means - mean[:, None]) ** 2).sum(1)

    def city_given(self, rows: pd.DataFrame) -> np.ndarray:
        """Probability of each city given a row's other known cells, `[n, cities]`."""
        of_city = [self.log_prob(rows.assign(city=name)) for name in self.cities]
        return softmax(np.stack(of_city, axis=1), axis=1)


@dataclass(frozen=True)
class Patterns:
    """Grey images of `size` x `size` pixels: a fixed pattern per class, and on each pixel noise of its own,

    .. math:: p(k \\mid c, i) \\propto \\exp(-(k - m_{ci})^2 / 2 s^2), \\quad k = 0 \\dots L - 1.
    """

    size: int = 4
    levels: int = 16
    spread: float = 1.5
    seed: int = 7

    @property
    def step(self) -> int:
        """Between neighbouring levels, in grey values."""
        return 255 // (self.levels - 1)

    @cached_property
    def patterns(self) -> np.ndarray:
        """The level about which each pixel of each class lies, `[classes, size, size]`."""
        return np.random.default_rng(self.seed).uniform(5, self.levels - 6, (len(SHARES), self.size, self.size))

    @cached_property
    def pmf(self) -> np.ndarray:
        """Probability of each level, `[classes, size, size, levels]`."""
        k = np.arange(self.levels)
        return softmax(-((k - self.patterns[..., None]) ** 2) / (2 * self.spread**2), axis=-1)

    def draw(self, n: int, random: np.random.Generator, label: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Images, uint8 `[n, size, size, 1]`, and their classes."""
        c = classes(n, random, label)
        cumulative = self.pmf.cumsum(-1)[c]
        level = (random.random((n, self.size, self.size, 1)) > cumulative).sum(-1).clip(0, self.levels - 1)
        return (level * self.step).astype(np.uint8)[..., None], c

    def strange(self, n: int, random: np.random.Generator) -> np.ndarray:
        """Anomalies: every pixel as far above the middle grey as it should be below."""
        return self.foreign.draw(n, random)[0]

    @cached_property
    def foreign(self) -> Patterns:
        """What anomalies are drawn from: the classes' negatives."""
        return dataclasses.replace(self)._with(self.levels - 1 - self.patterns)

    def _with(self, patterns: np.ndarray) -> Patterns:
        self.__dict__["patterns"] = patterns
        return self

    def _level(self, x: np.ndarray) -> np.ndarray:
        return np.round(np.nan_to_num(np.asarray(x, float)[..., 0]) / self.step).astype(int)

    def joint(self, x: np.ndarray) -> np.ndarray:
        """Log-probability of the known pixels (not NaN) together with each class, `[n, classes]`, nats."""
        level, known = self._level(x), ~np.isnan(np.asarray(x, float)[..., 0])
        each = np.log(np.take_along_axis(self.pmf[None], level[:, None, :, :, None], axis=-1)[..., 0])
        return np.log(SHARES) + (each * known[:, None]).sum((2, 3))

    def log_prob(self, x: np.ndarray) -> np.ndarray:
        """Log-probability of the known pixels, `[n]`, nats."""
        return logsumexp(self.joint(x), axis=1)

    def posterior(self, x: np.ndarray) -> np.ndarray:
        """Probability of each class given the known pixels, `[n, classes]`."""
        return softmax(self.joint(x), axis=1)

    def ratio(self, x: np.ndarray) -> np.ndarray:
        """The best score there is for telling `strange` images: log of their probability over that of the data."""
        return self.foreign.log_prob(x) - self.log_prob(x)

    def mean(self, weight: np.ndarray) -> np.ndarray:
        """Expected image for probabilities of the classes `[n, classes]`, `[n, size, size, 1]`, grey values."""
        return np.einsum("nc,chwk,k->nhw", weight, self.pmf, np.arange(self.levels) * self.step)[..., None]

    def variance(self, weight: np.ndarray) -> np.ndarray:
        """Variance of each pixel for probabilities of the classes, `[n, size, size, 1]`, squared grey values."""
        squares = np.einsum("nc,chwk,k->nhw", weight, self.pmf, (np.arange(self.levels) * self.step) ** 2)[..., None]
        return squares - self.mean(weight) ** 2

    def denoised(self, y: np.ndarray, sigma: float) -> np.ndarray:
        r"""Expected clean image given one with Gaussian noise, :math:`E[x \mid y]`, grey values.

        Arguments:
            y: Noisy images, `[n, size, size, 1]`.
            sigma: Standard deviation of the noise in grey values.
        """
        grey = np.arange(self.levels) * self.step
        noise = stats.norm.logpdf(y[..., 0][..., None], grey, sigma)[:, None]  # [n, 1, h, w, k]
        each = np.log(self.pmf)[None] + noise
        within = softmax(each, axis=-1) @ grey  # [n, c, h, w]
        weight = softmax(np.log(SHARES) + logsumexp(each, axis=-1).sum((2, 3)), axis=1)
        return np.einsum("nc,nchw->nhw", weight, within)[..., None]
