"""Every argument of every task of every family: changing it changes what it must, and only that.

On rows all of them, on images those whose meaning is another there.

The data are known: class 0 (three quarters) is dark, or negative in its first column; class 1 is bright, or positive.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
from specs import spec_of
from test_tables import seeded, table

from models import CAPABILITIES, FAMILIES, Batch, GenerativeModel, Streams, build

KINDS = ("image", "table")
SETTINGS = {
    "autoencoder": {"latent": 4, "width": 8},
    "vae": {"latent": 4, "width": 8},
    "gan": {"latent": 4, "width": 8, "critic_width": 8, "features": 8, "gamma": 0.3, "inversion_steps": 5},
    "flow": {"steps": 4, "width": 16, "embed": 8},
    "diffusion": {"width": 8, "embed": 16, "steps": 8},
}
STEPS = {
    "image": {"autoencoder": 50, "vae": 100, "gan": 60, "flow": 80, "diffusion": 150},
    "table": {"autoencoder": 60, "vae": 150, "gan": 150, "flow": 75, "diffusion": 350},
}
SEEN_IN_IMAGES = {("sample", "label"), ("impute", "observed"), ("translate", "label"), ("denoise", "sigma")}
"""Arguments that images take in another way than rows: a look, a half that is hidden, noise in grey values."""
ITERATIVE = {"diffusion"}
NOISY = {  # whose answers the generator changes, and by design; see `Case.noisy`
    "sample": set(FAMILIES),
    "impute": set(FAMILIES),
    "translate": set(FAMILIES),
    "log_prob": {"flow", "diffusion"},
    "elbo": {"vae", "diffusion"},
    "anomaly_score": {"vae", "flow", "diffusion"},
    "reconstruct": {"gan"},
}


def data(kind: str, n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Examples and labels; of the rows a twentieth of the cells is missing."""
    g = seeded(seed)
    label = (torch.rand(n, generator=g) < 0.25).long()
    if kind == "image":
        tilt = torch.randint(-1, 2, (n, 1, 1, 1), generator=g) * torch.tensor([-1, -1, 1, 1]).reshape(4, 1, 1)
        level = 4 + 8 * label.reshape(-1, 1, 1, 1) + tilt + torch.randint(-1, 2, (n, 4, 4, 1), generator=g)
        return (level * 255 / 16).round().to(torch.uint8), label
    a = 3 * (2 * label - 1) + 0.5 * torch.randn(n, generator=g)
    b = (3 * torch.randn(n, generator=g)).round()
    c = torch.where(torch.rand(n, generator=g) < 0.8, label, 2)
    x = torch.stack([a, b, c], dim=1).double()
    x[torch.rand(x.shape, generator=g) < 0.05] = torch.nan
    return x, label


def class_of(x: torch.Tensor) -> torch.Tensor:
    """The class that an example looks like."""
    return (x.double().flatten(1).mean(1) > 127.5).long() if x.dtype == torch.uint8 else (x[:, 0] > 0).long()


@dataclass(frozen=True)
class Case:
    """A trained model, and examples it has not seen (without gaps)."""

    family: str
    kind: str
    model: GenerativeModel
    x: torch.Tensor
    label: torch.Tensor

    @property
    def sure(self) -> float:
        """Agreement with the class wanted that a short training reaches; 0.5 by chance, its standard error 0.04.

        A row's first column is brought to the normal scale, where the two classes touch.
        """
        return 0.9 if self.kind == "image" else 0.7

    def noisy(self, task: str) -> bool:
        """Whether the generator changes the task's answer; a flow of rows sums its cells' probabilities exactly."""
        exact = (self.family, self.kind) == ("flow", "table") and task in ("log_prob", "anomaly_score")
        return self.family in NOISY.get(task, ()) and not exact

    def ask(self, task: str, *, seed: int = 0, n: int = 16, **changes: Any) -> torch.Tensor:
        """A task's answer, with ordinary arguments but for the `changes`."""
        x = self.x[:n]
        ordinary: dict[str, Any] = {
            "n": n,
            "x": x,
            "label": None,
            "generator": Streams.seeded(seed),
            "observed": self.half(n),
            "sigma": 40.0 if self.kind == "image" else 0.5,
            "strength": 0.5,
        }
        if task == "decode":
            ordinary["z"] = self.model.encode(x)
        method = getattr(self.model, task)
        wanted = [p.name for p in inspect.signature(method).parameters.values() if p.default is inspect.Parameter.empty]
        return method(**{name: ordinary[name] for name in wanted} | changes)

    def half(self, n: int) -> torch.Tensor:
        """Observed: the upper half of an image; of a row all but the first cell."""
        observed = torch.ones(self.x[:n].shape, dtype=torch.bool)
        if self.kind == "image":
            observed[:, 2:] = False
        else:
            observed[:, 0] = False
        return observed


@cache
def case(family: str, kind: str) -> Case:
    """A family after a short training."""
    x, label = data(kind, 2000, 0)
    image = {"kind": "image", "channels": 1, "height": 4, "width": 4, "levels": 17}
    domain = image if kind == "image" else table(x, "ci3")
    torch.manual_seed(0)
    model = build(spec_of(family, SETTINGS[family], domain=domain, classes=2))
    model.initialize(Batch(x, label), Streams.seeded("initialize"))
    optimizers = [torch.optim.Adam(o.parameters(), 4e-3, (0.5, 0.99)) for o in model.objectives()]
    for step in range(STEPS[kind][family]):
        rows = torch.randint(len(x), (128,), generator=seeded(step))
        for objective, optimizer in zip(model.objectives(), optimizers, strict=True):
            optimizer.zero_grad()
            objective(Batch(x[rows], label[rows]), Streams.seeded(step)).total.mean().backward()
            for group in optimizer.param_groups:
                group["lr"] = 4e-3 * (1 - step / STEPS[kind][family])
            optimizer.step()
    model.eval().finalize(Batch(x[:512], label[:512]), Streams.seeded("finalize"))
    fresh, truth = data(kind, 400, 1)
    whole = ~fresh.isnan().flatten(1).any(1)
    return Case(family, kind, model, fresh[whole], truth[whole])


Statement = Callable[[Case, str], None]
"""What must hold of a case and a task."""

WALK: dict[tuple[str, str], Statement] = {}
"""What each argument of each task must do."""


def argument(*pairs: str) -> Callable[[Statement], Statement]:
    """Enter a statement about `task.argument` into the walk."""

    def enter(statement: Statement) -> Statement:
        for pair in pairs:
            task, name = pair.split(".")
            assert (task, name) not in WALK, pair
            WALK[task, name] = statement
        return statement

    return enter


def share(found: torch.Tensor, wanted: torch.Tensor | int) -> float:
    return float((found == wanted).double().mean())


def agreement(x: torch.Tensor, wanted: torch.Tensor) -> float:
    """Share of the examples that look like the class wanted, mean over both classes: 0.5 if labels are ignored."""
    found = class_of(x)
    return sum(share(found[wanted == label], label) for label in (0, 1)) / 2


def others_stay(name: str, changed: Callable[[torch.Tensor], torch.Tensor]) -> Statement:
    """Another first entry of a per-example argument changes the first answer and, bit for bit, no other."""

    def statement(case: Case, task: str) -> None:
        base = case.model.encode(case.x[:5]) if name == "z" else case.x[:5]
        other = base.clone()
        other[0] = changed(base if name == "z" else case.x)[0]
        first, second = (case.ask(task, n=5, **{name: value}) for value in (base, other))
        rows = (1, 0) if task == "impute" else (0, 1)
        first, second = first.movedim(rows[0], 0), second.movedim(rows[0], 0)
        assert torch.equal(first[1:], second[1:])
        assert not torch.equal(first[0], second[0])

    return statement


def of_other_class(x: torch.Tensor) -> torch.Tensor:
    """The batch with an example of another class in front."""
    found = class_of(x)
    return x[(found != found[0]).nonzero()[:1, 0]].expand_as(x)


# Sampling


@argument("sample.n")
def _(case: Case, task: str) -> None:
    for n in (0, 1, 7):
        assert case.ask("sample", n=n).shape == (n, *case.x.shape[1:])


@argument("sample.label")
def _(case: Case, task: str) -> None:
    alternating = torch.arange(200) % 2
    assert agreement(case.ask("sample", n=200, label=alternating), alternating) > case.sure
    anything = case.ask("sample", n=400)
    assert abs(share(class_of(anything), 1) - 0.25) < 0.15  # half for every class would be 0.5
    assert torch.equal(anything, case.ask("sample", n=400, label=torch.full((400,), -1)))
    some = torch.where(alternating == 1, 1, -1)
    drawn = class_of(case.ask("sample", n=200, label=some))
    assert share(drawn[alternating == 1], 1) > share(drawn[alternating == 0], 1) + 0.3
    changed = some.clone()
    changed[1] = 0
    two = [case.ask("sample", n=200, label=label) for label in (some, changed)]
    assert torch.equal(two[0][2:], two[1][2:])
    assert not torch.equal(two[0][1], two[1][1])
    with pytest.raises(ValueError, match="below 2"):
        case.ask("sample", n=1, label=torch.tensor([2]))
    with pytest.raises(ValueError, match="expected 3, got 2"):
        case.ask("sample", n=3, label=torch.tensor([0, 1]))


@argument("sample.generator")
def _(case: Case, task: str) -> None:
    draws = case.ask("sample")
    assert torch.equal(draws, case.ask("sample"))
    assert not torch.equal(draws, case.ask("sample", seed=1))
    assert len(draws.unique(dim=0)) > 8
    both = case.ask("sample", generator=Streams.seeded(0, ranks=(0, 5)))
    alone = [case.ask("sample", n=8, generator=Streams.seeded(0, ranks=(rank,))) for rank in (0, 5)]
    assert near(both, torch.cat(alone))


@argument("sample.steps", "translate.steps")
def _(case: Case, task: str) -> None:
    own = case.ask(task)
    if case.family not in ITERATIVE:
        assert torch.equal(own, case.ask(task, steps=3))
        return
    assert torch.equal(own, case.ask(task, steps=SETTINGS[case.family]["steps"]))
    assert not torch.equal(own, case.ask(task, steps=3))
    with pytest.raises(ValueError, match="steps must be at least 2"):
        case.ask(task, steps=1)


# Densities


for each in ("log_prob", "elbo", "encode", "reconstruct", "anomaly_score", "impute", "denoise", "translate"):
    argument(f"{each}.x")(others_stay("x", of_other_class))
argument("decode.z")(others_stay("z", lambda z: -z))


@argument(*(f"{task}.generator" for task in ("log_prob", "elbo", "anomaly_score")))
def _(case: Case, task: str) -> None:
    first, again, other = (case.ask(task, n=50, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    if not case.noisy(task):
        assert torch.equal(first, other)
        return
    assert not torch.equal(first, other)
    assert float((first - other).mean().abs()) < 0.5 * float(first.std())  # noise, not another answer


@argument("log_prob.steps")
def _(case: Case, task: str) -> None:
    coarse, fine, finest = (case.ask("log_prob", steps=steps).mean() for steps in (3, 12, 24))
    assert abs(fine - finest) < 0.3 * abs(coarse - finest)


@argument("elbo.samples")
def _(case: Case, task: str) -> None:
    default = inspect.signature(case.model.elbo).parameters["samples"].default
    assert torch.equal(case.ask("elbo"), case.ask("elbo", samples=default))
    few, many = (torch.stack([case.ask("elbo", seed=s, samples=k) for s in range(12)]) for k in (1, 16))
    assert float(many.std(0).mean()) < 0.6 * float(few.std(0).mean())
    if case.family == "vae":  # importance weights tighten the bound
        few, many = (torch.stack([case.ask("elbo", n=200, seed=s, samples=k) for s in range(12)]) for k in (1, 16))
        assert float((many - few).mean()) > 0
    else:  # an average of as many terms
        assert float((many - few).mean().abs()) < 3 * float(few.std(0).mean()) / (12 * 16) ** 0.5 + 0.5
    with pytest.raises(ValueError, match="samples must be at least 1, got 0"):
        case.ask("elbo", samples=0)


@argument("log_prob.label", "elbo.label")
def _(case: Case, task: str) -> None:
    """Bayes: the answer for an unknown label is that for each class, summed with the classes' shares."""
    n = 100
    unknown, some = torch.full((n,), -1), torch.where(torch.arange(n) % 2 == 1, case.label[:n], -1)
    marginal, mixed = case.ask(task, n=n), case.ask(task, n=n, label=some)
    assert torch.equal(marginal, case.ask(task, n=n, label=unknown))
    each = torch.stack([case.ask(task, n=n, label=torch.full((n,), c)) for c in (0, 1)], dim=1)
    by_hand = (each + case.model.label_frequencies.log()).logsumexp(1)
    known = each.gather(1, case.label[:n, None])[:, 0]
    expected = torch.where(some < 0, by_hand, known)
    assert float(known.mean()) > float(each.mean()) + 0.3
    if case.family == "diffusion":  # whose noise is another one
        error = 3 * float((marginal - by_hand).std()) / n**0.5
        assert abs(float((marginal - by_hand).mean())) < error + 0.1
        assert abs(float((mixed - expected).mean())) < error + 0.1
        assert error < 0.5 * float((known - each.mean(1)).mean())
    else:
        assert torch.allclose(marginal, by_hand, atol=1e-3)
        assert torch.allclose(mixed, expected, atol=1e-3)
    with pytest.raises(ValueError, match="below 2"):
        case.ask(task, n=1, label=torch.tensor([2]))
    with pytest.raises(ValueError, match="expected 3, got 2"):
        case.ask(task, n=3, label=torch.tensor([0, 1]))


# What is given back of an example


@argument("reconstruct.generator", "translate.generator", "impute.generator")
def _(case: Case, task: str) -> None:
    first, again, other = (case.ask(task, n=4, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (not case.noisy(task))


@argument("impute.observed")
def _(case: Case, task: str) -> None:
    """Observed cells come back, what stood in the others does not matter, and the observed ones decide the class."""
    n = 40 if case.kind == "image" else 250
    known, observed = case.x[:n], case.half(n)
    fill = case.ask("impute", n=n)[0]
    assert torch.equal(fill[observed], known[observed])
    assert torch.equal(case.ask("impute", observed=torch.ones_like(observed[:16]))[0], known[:16])
    garbage = torch.where(observed, known, known.flip(0))
    assert torch.equal(case.ask("impute", n=n, x=garbage)[0], fill)
    if case.kind == "image":
        assert agreement(fill[:, 2:], case.label[:n]) > 0.8
    else:  # where the last column says which it is
        sure = known[:, 2] < 2
        assert agreement(fill[sure], case.label[:n][sure]) > 0.75


@argument("impute.draws")
def _(case: Case, task: str) -> None:
    observed = case.half(16)
    assert torch.equal(case.ask("impute"), case.ask("impute", draws=1))
    several = case.ask("impute", draws=5)
    assert several.shape == (5, 16, *case.x.shape[1:])
    assert torch.equal(several[:, observed], case.x[:16][observed].expand(5, -1))
    hidden = several.double().std(0)[~observed].reshape(16, -1)
    assert float((hidden > 0).any(1).double().mean()) > (0 if case.family == "autoencoder" else 0.8)


@argument("denoise.sigma")
def _(case: Case, task: str) -> None:
    low, high = (
        case.ask("denoise", n=100, sigma=sigma) for sigma in ((2.0, 1500.0) if case.kind == "image" else (0.02, 12.0))
    )
    numbers = slice(None) if case.kind == "image" else slice(0, 1)
    was = case.x[:100].double().flatten(1)[:, numbers]
    little, much = (found.double().flatten(1)[:, numbers] for found in (low, high))
    assert float((little - was).std()) < 0.1 * float(was.std())  # hardly any noise: hardly any change
    if case.family in ITERATIVE:
        assert float(much.std(0).mean()) < 0.5 * float(was.std(0).mean())  # all noise: the mean of all examples
    else:
        rebuilt = case.ask("reconstruct", n=100).double().flatten(1)[:, numbers]
        assert float((much - rebuilt).std()) < float((much - was).std())  # all noise: what is made of it
    for sigma in (0.0, -1.0):
        with pytest.raises(ValueError, match="sigma must be positive"):
            case.ask("denoise", sigma=sigma)


@argument("translate.label")
def _(case: Case, task: str) -> None:
    strength = 0.8 if case.family == "diffusion" else 0.0
    other = 1 - case.label[:100]
    moved = case.ask("translate", n=100, label=other, strength=strength)
    assert agreement(moved, other) > case.sure
    gentle = strength / 4
    same = case.ask("translate", n=100, strength=gentle)
    assert agreement(same, case.label[:100]) > case.sure
    if case.kind == "table":  # the rest is kept, but by a short VAE's code; and by noise that crosses classes
        kept = {"autoencoder": [moved, same], "flow": [moved, same], "diffusion": [same], "vae": []}
        for rows in kept[case.family]:
            assert float(torch.corrcoef(torch.stack([case.x[:100, 1], rows[:, 1]]))[0, 1]) > 0.5
    assert torch.equal(same, case.ask("translate", n=100, strength=gentle, label=torch.full((100,), -1)))
    some = other.clone()
    some[0] = case.label[0]
    again = case.ask("translate", n=100, label=some, strength=strength)
    assert torch.equal(again[1:], moved[1:])
    with pytest.raises(ValueError, match="below 2"):
        case.ask("translate", label=torch.full((16,), 2))


@argument("translate.strength")
def _(case: Case, task: str) -> None:
    """At 0 chance has no part in it; at 1 the example has none."""
    label = torch.ones(16, dtype=torch.long)
    nothing = [case.ask("translate", label=label, strength=0.0, seed=seed) for seed in (0, 1)]
    assert torch.equal(*nothing)
    everything = [case.ask("translate", x=x, label=label, strength=1.0) for x in (case.x[:16], case.x[:16].flip(0))]
    if case.family == "diffusion":  # noise twenty times as wide as the data
        assert share(class_of(everything[0]), 1) > 0.5
    else:
        assert near(*everything)
    for strength in (-0.1, 1.1):
        with pytest.raises(ValueError, match="strength must lie between 0 and 1"):
            case.ask("translate", strength=strength)


# The walk


def near(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal but for the order of sums (which may move a rounded value here and there)."""
    close = torch.isclose(a.double(), b.double(), rtol=1e-4, atol=1e-3)
    return a.shape == b.shape and float(close.double().mean()) > 0.99


def walk() -> list[Any]:
    """Every argument of every task that each family has, as their signatures say (on images some of them)."""
    found = []
    for kind in KINDS:
        for family, cls in FAMILIES.items():
            for capability in dict.fromkeys(CAPABILITIES.values()):
                if not issubclass(cls, capability):
                    continue
                for task in sorted(capability.__abstractmethods__):
                    for owner in (capability, cls):
                        names = list(inspect.signature(getattr(owner, task)).parameters)[1:]
                        found += [
                            (family, kind, task, name)
                            for name in names
                            if kind == "table" or (task, name) in SEEN_IN_IMAGES
                        ]
    return list(dict.fromkeys(found))


def test_every_argument_of_every_task_is_walked():
    """A new task or argument needs a statement of its own."""
    assert {(task, name) for _, _, task, name in walk()} == set(WALK)


@pytest.mark.parametrize(("family", "kind", "task", "name"), walk())
def test_an_argument_changes_what_it_must_and_only_that(family, kind, task, name):
    WALK[task, name](case(family, kind), task)


# Invariances


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_without_noise_depend_on_neither_order_nor_company(family):
    """Whole, in parts of 4 and of 1, and in another order: the same answers."""
    found = case(family, "table")
    order = torch.randperm(9, generator=seeded(3))
    for task in ("encode", "reconstruct", "denoise", "anomaly_score", "decode"):
        if not hasattr(found.model, task) or found.noisy(task):
            continue
        name = "z" if task == "decode" else "x"
        given = found.model.encode(found.x[:9]) if name == "z" else found.x[:9]
        whole = found.ask(task, **{name: given})
        for size in (4, 1):
            parts = torch.cat([found.ask(task, **{name: part}) for part in given.split(size)])
            assert near(parts, whole), (task, size)
        assert near(found.ask(task, **{name: given[order]}), whole[order]), task
