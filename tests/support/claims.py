"""What a served model must say of data whose truth is known, whoever asks: Python or REST.

Every claim states an interval and its reason. A sampling error is taken four standard errors wide. What a
model must have learned is stated by a rival of known quality: it must be nearer to the truth than the rival.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from truth import GAPS, NAMES, SHARES, Patterns, Rows, auroc

Ask = Callable[..., Any]
"""`ask(rows, task=…, n=…, …)`: what `predict` returns; images as an array, rows as a DataFrame."""

ROWS, PATTERNS = Rows(), Patterns()


def within(what: str, value: float, low: float, high: float) -> None:
    """Refuse a figure outside its interval by name."""
    print(f"{what}: {value:.4g} in [{low:.4g}, {high:.4g}]")
    assert low <= value <= high, f"{what}: {value:.4g} is outside [{low:.4g}, {high:.4g}]"


def error_of(values: np.ndarray) -> float:
    """Standard error of a mean."""
    return float(np.std(values) / np.sqrt(len(values)))


def fresh(n: int, seed: int, label: int | None = None) -> tuple[pd.DataFrame, np.ndarray]:
    """Rows that no model has seen, and their classes."""
    return ROWS.draw(n, np.random.default_rng(1000 + seed), label)


def fresh_images(n: int, seed: int, label: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Images that no model has seen, and their classes."""
    return PATTERNS.draw(n, np.random.default_rng(1000 + seed), label)


def no_rows() -> pd.DataFrame:
    return fresh(1, 0)[0].iloc[:0]


def no_images() -> np.ndarray:
    return np.zeros((0, PATTERNS.size, PATTERNS.size, 1), np.uint8)


# What was asked for is what comes back


def numbered(ask: Ask, nothing: Any) -> None:
    """n draws, all different beyond any chunk's size; the same from one seed, others from another."""
    drawn = as_texts(ask(nothing, n=600, seed=3))
    assert len(drawn) == 600
    assert len(set(drawn)) == 600, "draws repeat"  # two alike of 600 have a chance below 1e-6
    again = as_texts(ask(nothing, n=40, seed=3))
    assert len(again) == 40
    assert as_texts(ask(nothing, n=40, seed=3)) == again
    assert not set(as_texts(ask(nothing, n=40, seed=4))) & set(again)


def as_texts(x: Any) -> list[str]:
    """An example's cells as text, to be compared."""
    return [str(row) for row in (x.to_numpy().tolist() if isinstance(x, pd.DataFrame) else x.tolist())]


# Samples by label


def rows_of_label(ask: Ask) -> None:
    """600 draws of each class have its means, shares and tails; 1,500 of any class have the classes' shares.

    Means within a quarter of the class's standard deviation (the classes lie 2.7 apart), shares within .1 (they
    differ by .3 and more): the model's error; and four standard errors.
    """
    for label in range(len(SHARES)):
        drawn = ask(no_rows(), n=600, label=label, seed=label)
        assert list(drawn.columns) == [*ROWS.columns, "tier"]
        assert set(drawn["tier"]) == {NAMES[label]}
        for name, share in drawn.isna().mean().items():
            expected = GAPS if name in ROWS.gaps else 0.0
            within(f"gaps in {name}", share, expected - 0.05, expected + 0.05 if expected else 0)
        of_class = ROWS.posterior(drawn.assign(country=None))[:, label].mean()
        within(f"probability of class {label} in its draws", of_class, 0.6, 1)  # the label ignored: its share
        slack = 0.25 + 4 / np.sqrt(600)
        sd = np.hypot(ROWS.slope * ROWS.length_sd, ROWS.mass_sd)
        for name, mean, scale in (
            ("length", ROWS.lengths[label], ROWS.length_sd),
            ("mass", ROWS.slope * ROWS.lengths[label] + ROWS.offsets[label], sd),
            ("visits", ROWS.visits[label], np.sqrt(ROWS.visits[label])),
        ):
            within(f"mean {name} of class {label}", (drawn[name].mean() - mean) / scale, -slack, slack)
        shares = [(drawn["city"].dropna() == city).mean() for city in ROWS.cities]
        within(f"cities of class {label}", np.abs(shares - ROWS.city_shares[label]).max(), 0, 0.1 + 4 * 0.02)
        within(f"members of class {label}", drawn["member"].mean() - ROWS.member_shares[label], -0.18, 0.18)
    drawn = ask(no_rows(), n=1500, seed=9)
    slack = 0.05 + 4 * np.sqrt(0.25 / 1500)
    for label, share in enumerate(ROWS.posterior(drawn.assign(country=None)).mean(0)):
        within(f"share of class {label} in draws of any", share - SHARES[label], -slack, slack)
    # beyond three scales lie 5.8 % of Student's t, .3 % of a Gaussian; of some draws the class is mistaken
    of = ROWS.posterior(drawn.assign(country=None, spent=np.nan)).argmax(1)
    far = (np.abs(drawn["spent"] - ROWS.spent_at[of]) > 3 * ROWS.spent_scale[of]).mean()
    within("tails of spent", far, 0.02, 0.2)


def impossible(drawn: pd.DataFrame) -> float:
    """Share of rows whose country is not their city's, of those that have both."""
    drawn = drawn.dropna(subset=["city", "country"])
    of = dict(zip(ROWS.cities, ROWS.countries, strict=True))
    return float((drawn["city"].map(of) != drawn["country"]).mean())


def images_of_label(ask: Ask, *, noise: bool = True) -> None:
    """300 draws of each class have its pixels' means and variances; 600 of any class have the classes' shares."""
    for label in range(len(SHARES)):
        drawn = ask(no_images(), n=300, label=label, seed=label)
        assert (drawn.dtype, drawn.shape) == (np.uint8, (300, 4, 4, 1))
        assert set(np.unique(drawn)) <= set(range(0, 256, PATTERNS.step))
        # the label ignored: its share, .2 to .5
        within(f"probability of class {label} in its draws", PATTERNS.posterior(drawn)[:, label].mean(), 0.6, 1)
        weight = np.eye(len(SHARES))[[label]]
        sd = np.sqrt(PATTERNS.variance(weight))
        off = ((drawn.mean(0) - PATTERNS.mean(weight)[0]) / sd[0]).squeeze()
        # the model's error, a quarter of the noise (patterns differ by 1 to 3 of it), and the sampling error
        within(f"mean pixels of class {label}", np.sqrt((off**2).mean()), 0, 0.25 + 1 / np.sqrt(300))
        if noise:
            within(f"variance of pixels of class {label}", (drawn.var(0) / sd[0] ** 2).mean(), 0.75, 1.35)
    drawn = ask(no_images(), n=600, seed=9)
    slack = 0.05 + 4 * np.sqrt(0.25 / 600)
    for label, share in enumerate(PATTERNS.posterior(drawn).mean(0)):
        within(f"share of class {label} in draws of any", share - SHARES[label], -slack, slack)


# Densities


def short_of(truth: Rows | Patterns, told: np.ndarray, x: Any) -> np.ndarray:
    r"""Nats by which a stated log-density falls short of the truth; on average never below 0, for a bound all the more.

    .. math:: E[\log p - \log q] = KL(p \| q) \ge 0
    """
    short = truth.log_prob(x) - told
    within("nats short of the truth", short.mean(), -4 * error_of(short), np.inf)
    return short


def near(truth: Rows | Patterns, told: np.ndarray, x: Any, rival: float, *, exact: bool) -> None:
    r"""Nearer to the truth than half the way to a `rival` that knows every column or pixel, and no dependence.

    And no density holds more than one unit of mass: :math:`E_p[q(x) / p(x)] = \int q \le 1`, which a density without
    its classes' shares breaks (it holds one unit per class).
    """
    short = short_of(truth, told, x)
    within("nats short of the truth", short.mean(), -np.inf, rival / 2 + 4 * error_of(short))
    if exact:
        ratio = np.exp(-short)
        within("mass", ratio.mean(), 0, 1 + 4 * error_of(ratio))


def rows_bound(ask: Ask) -> None:
    x = ROWS.with_gaps(fresh(400, 1)[0], 0.1, np.random.default_rng(1))
    short_of(ROWS, ask(x, task="elbo", draws=16), x)


def images_bound(ask: Ask) -> None:
    x = fresh_images(400, 1)[0]
    short_of(PATTERNS, ask(x, task="elbo", draws=16), x)


def rows_density(ask: Ask, task: str, *, exact: bool) -> None:
    """On complete rows, and on rows with gaps, whose density is that of their known cells."""
    x = fresh(800 if exact else 300, 1)[0]
    rival = -ROWS.ratio(x).mean()
    near(ROWS, ask(x, task=task, draws=16), x, rival, exact=exact)
    gappy = ROWS.with_gaps(x, 0.2, np.random.default_rng(1))
    near(ROWS, ask(gappy, task=task, draws=16), gappy, rival, exact=exact)


def images_density(ask: Ask, task: str, *, exact: bool) -> None:
    x = fresh_images(800 if exact else 300, 1)[0]
    alone = np.einsum("c,chwk->hwk", SHARES, PATTERNS.pmf)
    rival = PATTERNS.log_prob(x).mean() - sum(
        np.log(alone[i, j, x[:, i, j, 0] // PATTERNS.step]).mean() for i in range(4) for j in range(4)
    )
    near(PATTERNS, ask(x, task=task, draws=16), x, rival, exact=exact)


# Imputations


def rows_given(ask: Ask) -> None:
    """Rows of a city, of a range of lengths: classes as often as by Bayes' rule, all columns, gaps where they are."""
    city, low, high = "Oslo", 12.0, 16.0
    drawn = ask(no_rows(), task="sample", n=1500, seed=11, given=json.dumps({"city": city, "length": [low, high]}))
    assert list(drawn.columns) == [*ROWS.columns, "tier"]
    assert set(drawn["city"]) == {city}
    assert drawn["length"].between(low, high).all()
    lies = stats.norm.cdf([[high], [low]], ROWS.lengths, ROWS.length_sd)
    likely = SHARES * ROWS.city_shares[:, ROWS.cities.index(city)] * (lies[0] - lies[1])
    for c, name in enumerate(NAMES):
        share = likely[c] / likely.sum()
        within(f"share of {name}", float((drawn["tier"] == name).mean()), share - 0.08, share + 0.08)
    within("gaps", float(drawn[["mass", "spent", "visits"]].isna().to_numpy().mean()), 0.5 * GAPS, 1.6 * GAPS)
    assert (drawn["country"].dropna() == "Norway").mean() > 0.95


def rows_filled(ask: Ask) -> None:
    """Draws of a hidden number have its conditional mean and variance, of a hidden category its probabilities.

    The error is the sampling error, and less than half (squared) of that of a rival that knows the column, but not the
    row. Given cells come back as they were given.
    """
    x, draws = fresh(40, 2)[0], 24
    filled = ask(x.assign(mass=np.nan), task="impute", draws=draws, seed=5)
    assert filled["draw"].tolist() == [draw for draw in range(draws) for _ in range(len(x))]
    assert list(filled.columns) == ["draw", *ROWS.columns]  # no label: none was given
    for name in ROWS.columns:
        if name != "mass":
            assert filled[name].tolist() == x[name].tolist() * draws, f"{name} was given, and changed"
    mean, variance = ROWS.mass_given(x)
    mass = filled["mass"].to_numpy().reshape(draws, len(x))
    off, rival = (mass.mean(0) - mean) / np.sqrt(variance), (mean.mean() - mean) / np.sqrt(variance)
    within("error of the filled mean", rms(off), 0, np.hypot(1 / np.sqrt(draws), rms(rival) / np.sqrt(2)))
    # draws all alike: 0; draws of the column: above 4
    within("variance of the filled", np.median(mass.var(0) / variance), 0.4, 2.5)
    hidden = x.assign(city=None, country=None)
    filled = ask(hidden, task="impute", draws=draws, seed=6)
    assert set(filled["city"]) <= set(ROWS.cities)
    shares = np.stack(
        [(filled["city"] == city).to_numpy().reshape(draws, len(x)).mean(0) for city in ROWS.cities], axis=1
    )
    right = ROWS.city_given(hidden)
    off, rival = (np.abs(other - right).sum(1).mean() / 2 for other in (shares, SHARES @ ROWS.city_shares))
    strays = np.sqrt(right * (1 - right) / draws).sum(1).mean() / 2  # of shares in so many draws
    within("error of the filled city's shares", off, 0, strays + rival / np.sqrt(2))
    again = ask(hidden, task="impute", draws=2, seed=6)
    assert not ask(hidden, task="impute", draws=2, seed=7).equals(again)
    assert ask(hidden, task="impute", draws=2, seed=6).equals(again)
    assert list(ask(hidden, task="impute", draws=1).columns) == list(ROWS.columns)


def rms(values: np.ndarray) -> float:
    """Root of the mean square."""
    return float(np.sqrt(np.mean(np.square(values))))


def images_filled(ask: Ask) -> None:
    """Draws of the lower half, given the upper, have its conditional mean and variance (as for rows)."""
    x, draws = fresh_images(30, 2)[0], 24
    hidden = x.astype(float)
    hidden[:, 2:] = np.nan
    filled = ask(hidden, task="impute", draws=draws, seed=5)
    assert filled.shape == (draws, *x.shape)
    assert (filled[:, :, :2] == x[:, :2]).all(), "given pixels changed"
    weight = PATTERNS.posterior(hidden)
    mean, variance = PATTERNS.mean(weight)[:, 2:], PATTERNS.variance(weight)[:, 2:]
    rival = (PATTERNS.mean(SHARES[None])[:, 2:] - mean) / np.sqrt(variance)
    off = (filled[:, :, 2:].mean(0) - mean) / np.sqrt(variance)
    within("error of the filled mean", rms(off), 0, np.hypot(1 / np.sqrt(draws), rms(rival) / np.sqrt(2)))
    within("variance of the filled", np.median(filled[:, :, 2:].var(0) / variance), 0.4, 2.5)
    again = ask(hidden, task="impute", draws=1, seed=6)
    assert again.shape == x.shape
    assert (ask(hidden, task="impute", draws=1, seed=7) != again).any()
    assert (ask(hidden, task="impute", draws=1, seed=6) == again).all()


# Anomalies


def areas(ask: Ask, truth: Rows | Patterns) -> tuple[float, float, float, float]:
    """AUROC of the model's scores, of the true density, and of the best score there is; and a standard error."""
    random = np.random.default_rng(77)
    if isinstance(truth, Rows):
        both = pd.concat([fresh(500, 3)[0], truth.shuffled(500, random)], ignore_index=True)
    else:
        both = np.concatenate([fresh_images(500, 3)[0], truth.strange(500, random)])
    strange = np.arange(1000) >= 500
    own = auroc(-np.nan_to_num(truth.log_prob(both), neginf=-1e3), strange)
    best = auroc(truth.ratio(both), strange)
    return auroc(ask(both, task="anomaly_score"), strange), own, best, np.sqrt(1 / (12 * 250))


def anomalies(ask: Ask, truth: Rows | Patterns) -> None:
    """Anomalies score above chance (a sign turned: below), and no score tells them better than the ratio of the true
    densities (Neyman and Pearson)."""
    area, _, best, error = areas(ask, truth)
    within("AUROC", area, 0.5 + 4 * error, best + 4 * error)


def anomalies_well(ask: Ask, truth: Rows | Patterns) -> None:
    """Nearer to what the true density tells, which does not know the anomalies either, than to chance."""
    area, own, _, _ = areas(ask, truth)
    within("AUROC", area, (own + 0.5) / 2, 1)


# Codes


def images_coded(ask: Ask, *, exact: bool) -> None:
    """Decoded codes are the example (where codes are exact) or of its class; reconstruction is no other way."""
    x = fresh_images(100, 4)[0]
    codes = ask(x, task="encode")
    assert (len(codes), codes.ndim) == (100, 2)
    decoded = ask(codes, task="decode")
    same_class = (PATTERNS.posterior(decoded).argmax(1) == PATTERNS.posterior(x).argmax(1)).mean()
    within("codes of the example's class", same_class, 0.9, 1)
    if exact:
        within("levels that come back", (decoded == x).mean(), 0.995, 1)
        assert np.array_equal(ask(x, task="reconstruct"), decoded)


def rows_coded(ask: Ask, *, exact: bool) -> None:
    x = fresh(100, 4)[0]
    codes = ask(x, task="encode")
    decoded = ask(codes, task="decode")
    assert list(decoded.columns) == list(ROWS.columns)
    same_class = ROWS.posterior(decoded.assign(country=None)).argmax(1) == ROWS.posterior(x).argmax(1)
    within("codes of the example's class", same_class.mean(), 0.9, 1)
    off = (decoded["length"] - x["length"]) / ROWS.length_sd
    within("error of the length that comes back", np.sqrt((off**2).mean()), 0, 0.02 if exact else 0.7)
    within("cities that come back", (decoded["city"] == x["city"]).mean(), 0.995 if exact else 0.7, 1)


# Denoising


def images_denoised(ask: Ask) -> None:
    """The expected clean image, given one with noise: nearer than what half or twice the strength would say."""
    x = fresh_images(200, 5)[0]
    for sigma in (34.0, 68.0):
        noisy = x + np.random.default_rng(5).normal(0, sigma, x.shape)
        told, right = ask(noisy, task="denoise", sigma=sigma), PATTERNS.denoised(noisy, sigma)
        rivals = [rms(PATTERNS.denoised(noisy, other) - right) for other in (sigma / 2, 2 * sigma)]
        within(f"denoised at {sigma:.0f}", rms(told - right), 0, 0.8 * min(rivals))


def rows_denoised(ask: Ask) -> None:
    """Noise is told in standard deviations of a column's probit: hardly any leaves a row alone; so much that nothing is
    known leaves every row at the columns' medians."""
    x = fresh(200, 5)[0]
    told = ask(x, task="denoise", sigma=0.02)
    within("change at little noise", rms((told["length"] - x["length"]) / ROWS.length_sd), 0, 0.3)
    within("cities that stay at little noise", (told["city"] == x["city"]).mean(), 0.95, 1)
    told = ask(x, task="denoise", sigma=60.0)
    spread = np.sqrt(SHARES @ (ROWS.length_sd**2 + (ROWS.lengths - SHARES @ ROWS.lengths) ** 2))
    grid = np.linspace(0, 30, 3001)
    median = grid[np.searchsorted(SHARES @ stats.norm.cdf(grid, ROWS.lengths[:, None], ROWS.length_sd), 0.5)]
    within("length at boundless noise", (told["length"].mean() - median) / spread, -0.3, 0.3)
    within("what is left of the rows", told["length"].std() / spread, 0, 0.2)


# All of them


def possible(ask: Ask) -> None:
    """A city's country is its own: of 1,000 draws at most one in a hundred says otherwise."""
    within("rows that cannot exist", impossible(ask(no_rows(), n=1000)), 0, 0.01)


CLAIMS: dict[str, dict[str, tuple[str, Callable[[Ask, str], None]]]] = {
    "shop": {
        "numbered": ("sample", lambda ask, _: numbered(ask, no_rows())),
        "labels": ("sample", lambda ask, _: rows_of_label(ask)),
        "possible": ("sample", lambda ask, _: possible(ask)),
        "given": ("log_prob", lambda ask, _: rows_given(ask)),  # of the family whose conditionals are exact
        "density": ("log_prob", lambda ask, family: rows_density(ask, "log_prob", exact=family == "flow")),
        "bound": ("elbo", lambda ask, _: rows_bound(ask)),
        "bound well": ("elbo", lambda ask, _: rows_density(ask, "elbo", exact=False)),
        "filled": ("impute", lambda ask, _: rows_filled(ask)),
        "anomalies": ("anomaly_score", lambda ask, _: anomalies(ask, ROWS)),
        "anomalies well": ("anomaly_score", lambda ask, _: anomalies_well(ask, ROWS)),
        "coded": ("encode", lambda ask, family: rows_coded(ask, exact=family == "flow")),
        "denoised": ("denoise", lambda ask, _: rows_denoised(ask)),
    },
    "tiles": {
        "numbered": ("sample", lambda ask, _: numbered(ask, no_images())),
        "labels": ("sample", lambda ask, family: images_of_label(ask, noise=family != "autoencoder")),
        "density": ("log_prob", lambda ask, family: images_density(ask, "log_prob", exact=family == "flow")),
        "bound": ("elbo", lambda ask, _: images_bound(ask)),
        "bound well": ("elbo", lambda ask, _: images_density(ask, "elbo", exact=False)),
        "filled": ("impute", lambda ask, _: images_filled(ask)),
        "anomalies": ("anomaly_score", lambda ask, _: anomalies(ask, PATTERNS)),
        "anomalies well": ("anomaly_score", lambda ask, _: anomalies_well(ask, PATTERNS)),
        "coded": ("encode", lambda ask, family: images_coded(ask, exact=family == "flow")),
        "denoised": ("denoise", lambda ask, _: images_denoised(ask)),
    },
}
"""By dataset and name: the task a claim is about, and the claim; the family says which of its answers are exact."""
