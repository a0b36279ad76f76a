"""Defaults that suit the data: from 8x8 to 64x64 pixels, from 100 to a million examples, on any machine."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
import torch

from models import FAMILIES, Batch, build
from pipelines.config import SECTIONS, read_yaml
from pipelines.defaults import Facts, defaults, expected_seconds, facts_of
from pipelines.defaults.layers import leaves
from pipelines.execution.probe import Speed
from pipelines.training import loop
from pipelines.training.config import TrainingConfig
from pipelines.training.durations import parse_duration

RECIPES = Path(__file__).parents[2] / "recipes"
SIZES = [
    (8, 8, 1),
    (15, 15, 1),
    (16, 16, 3),
    (28, 28, 1),
    (32, 32, 3),
    (48, 48, 3),
    (62, 47, 1),
    (64, 64, 1),
    (64, 64, 3),
]
MACHINES = [{"cuda": False, "bf16": False}, {"cuda": False, "bf16": True}, {"cuda": True, "bf16": True}]
EXAMPLES = [0, 100, 1_258, 9_000, 1_000_000]
DATA = [
    *(Facts(shape=size, examples=n, classes=c) for size, n, c in itertools.product(SIZES, EXAMPLES, (0, 10, 1_000))),
    *(Facts(kind="table", columns=k, examples=n) for k, n in itertools.product((0, 1, 14, 300), EXAMPLES)),
]


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: " ".join(key for key in machine if machine[key]))
def test_settings_are_valid_and_fit_whatever_the_data(machine: dict[str, bool]) -> None:
    """What their classes accept; a batch with examples for it, folds that divide, minutes on two cores of a CPU."""
    for data in DATA:
        facts = Facts(
            **{name: getattr(data, name) for name in ("kind", "shape", "columns", "examples", "classes")}, **machine
        )
        settings, why = defaults(facts)
        assert set(settings) >= set(FAMILIES)
        for name, cls in SECTIONS.items():
            cls(**settings.get(name, {}))
        assert set(why) <= {key for key, _ in leaves(settings)}
        for name, family in FAMILIES.items():
            model, training = family.Config(**settings[name]["model"]), TrainingConfig(**settings[name]["training"])
            family.SamplingConfig(**settings[name].get("sampling", {}))
            assert training.total_examples >= 2_000
            if facts.examples:
                assert training.batch_size <= facts.examples
                assert training.total_examples <= max(20_000, 400 * facts.examples)
            if facts.shape and hasattr(model, "patch") and facts.values >= 256:
                assert facts.shape[0] % max(1, model.patch) == facts.shape[1] % max(1, model.patch) == 0
            if facts.values >= 256 and name == "diffusion":  # a linear map of fewer channels cannot say all noise
                assert model.width >= model.patch**2 * facts.shape[2]
            if machine["cuda"]:  # an H100: 5 M examples at 2,900 to 9,200 a second of 28x28, 1,500 to 8,800 of 64x64
                assert 0 < expected_seconds(name, facts, settings[name]["training"], cores=2) < 66 * 60
            else:
                assert 0 < expected_seconds(name, facts, settings[name]["training"], cores=2) < 6 * 60


@pytest.mark.parametrize("classes", [0, 8, 1_000])
@pytest.mark.parametrize("family", ["gan", "diffusion"])
def test_what_a_model_of_large_images_starts_from_stays_small_whatever_the_classes(family: str, classes: int) -> None:
    """A covariance of 256 components in four Gaussians of each of 1,000 classes would be a gigabyte."""
    settings, _ = defaults(Facts(shape=(64, 64, 3), examples=1_000_000, classes=classes))
    domain = {"kind": "image", "height": 64, "width": 64, "channels": 3, "levels": 256}
    model = build({"family": family, "config": settings[family]["model"], "domain": domain, "classes": classes})
    assert 1_000_000 < sum(buffer.nbytes for buffer in model.buffers()) < 100_000_000


def test_a_gan_of_handwriting_starts_from_noise_and_of_photographs_from_components() -> None:
    """An image of black and white pixels alone has contrast 1, one of all levels alike (256² - 1) / 12 / (127.5²)."""

    def found(side: int, mean: float, std: float) -> tuple[float, bool]:
        manifest = {
            "domain": {"kind": "image", "height": side, "width": side, "channels": 1},
            "splits": {},
            "statistics": {"mean": [mean], "std": [std]},
        }
        facts = facts_of(manifest, {"cuda": False, "bf16": False})
        return facts.contrast, "principal" in defaults(facts)[0]["gan"]["model"]

    even = math.sqrt((256**2 - 1) / 12)
    assert found(28, 127.5, even) == (pytest.approx(0.336, abs=1e-3), True)
    assert found(28, 51.0, 102.0) == (pytest.approx(1.0), False)  # a fifth of the pixels white
    assert found(40, 51.0, 102.0) == (pytest.approx(1.0), True)  # where nothing is learned from noise in minutes
    assert found(28, 0.0, 0.0) == (0.0, True)  # all black


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: " ".join(key for key in machine if machine[key]))
def test_a_model_can_be_built_of_the_settings_whatever_the_size(machine: dict[str, bool]) -> None:
    """Also of what a configuration cannot know by itself: how often a side can be halved, what a fold leaves."""
    for size in [(5, 3, 1), (17, 33, 3), *SIZES]:
        settings, _ = defaults(Facts(shape=size, examples=9_000, classes=10, **machine))
        domain = dict(zip(("height", "width", "channels"), size, strict=True), kind="image", levels=256)
        for name in FAMILIES:
            with torch.device("meta"):  # shapes only
                model = build({"family": name, "config": settings[name]["model"], "domain": domain, "classes": 10})
            assert sum(parameter.numel() for parameter in model.parameters()) > 1_000, (size, name)


@pytest.mark.parametrize(
    ("recipe", "facts"),
    [
        ("mnist-10k", Facts(shape=(28, 28, 1), contrast=0.84, examples=9_000, classes=10, bf16=True)),
        ("cifar10", Facts(shape=(32, 32, 3), examples=45_000, classes=10, cuda=True, bf16=True)),
    ],
)
def test_what_recipes_know_the_rules_know(recipe: str, facts: Facts) -> None:
    """All but how many examples they see, and Gaussians over codes that were not counted on a GPU."""
    known, found = dict(leaves(read_yaml(RECIPES / f"{recipe}.yaml"))), dict(leaves(defaults(facts)[0]))
    other = {key for key, value in known.items() if found.get(key) != value}
    assert {key.partition(".")[2] for key in other} <= {"training.total_examples", "model.components"}
    assert all(0.6 < found[key] / known[key] < 1.5 for key in other if "total_examples" in key)


@pytest.mark.parametrize("examples", [300, 1_000, 1_750, 3_000, 4_999])
def test_few_rows_are_seen_in_some_thousand_updates_and_not_learned_by_heart(examples: int) -> None:
    """Measured on tables of 300 to 3,000 rows: 80 updates learn no relation, 100 passes and more cost held-out nats."""
    settings, why = defaults(Facts(kind="table", columns=14, examples=examples))
    for name in FAMILIES:
        training = TrainingConfig(**settings[name]["training"])
        assert 700 <= training.total_steps <= 2_500
        assert 20 <= training.total_examples / examples <= 75
        assert settings[name]["model"]["dropout"] > 0
        assert "passes over few rows" in why[f"{name}.training.total_examples"]


@pytest.mark.parametrize(("columns", "examples", "total"), [(15, 29_305, 590_000), (6, 5_500, 110_000)])
def test_many_rows_are_seen_as_the_figures_of_their_recipes_say(columns: int, examples: int, total: int) -> None:
    """Those of `adult` and `mammography`, in batches of 256 and without dropout."""
    settings, _ = defaults(Facts(kind="table", columns=columns, examples=examples))
    for name in FAMILIES:
        training = settings[name]["training"]
        assert (training["total_examples"], training["batch_size"]) == (total, 256)
        assert "dropout" not in settings[name]["model"]


@pytest.mark.parametrize("examples", [6, 20, 100, 1_000, 30_000])
@pytest.mark.parametrize("kind", ["image", "table"])
def test_a_short_training_is_not_all_warm_up(kind: str, examples: int) -> None:
    facts = Facts(kind=kind, shape=(48, 64, 3) if kind == "image" else (), columns=8, examples=examples)
    for name in FAMILIES:
        training = TrainingConfig(**defaults(facts)[0][name]["training"])
        assert training.warmup_examples <= 0.1 * training.total_examples, name


def test_the_digits_are_trained_as_their_figures_say() -> None:
    """README's figures, the golden report and the tutorial are of these."""
    settings, _ = defaults(Facts(shape=(8, 8, 1), examples=1_258, classes=10, bf16=True))
    totals = {name: settings[name]["training"]["total_examples"] for name in FAMILIES}
    assert totals == {"autoencoder": 80_000, "vae": 80_000, "gan": 70_000, "flow": 80_000, "diffusion": 70_000}
    assert {"precision", "weight_decay"} & {key for name in FAMILIES for key in settings[name]["training"]} == set()
    assert [settings[name]["training"]["batch_size"] for name in FAMILIES] == [256, 256, 64, 256, 128]


def test_a_search_begins_from_what_the_rules_say() -> None:
    """Learning rates to try lie on both sides of the one that is used without a search."""
    for facts in (Facts(shape=(8, 8, 1), examples=1_258, classes=10), Facts(shape=(28, 28, 1), examples=9_000)):
        settings, _ = defaults(facts)
        for name in ("autoencoder", "vae", "flow", "diffusion"):
            searched = settings[name].get("search", {}).get("training", {})
            assert name == "flow" or "lr" in searched
            if "lr" in searched:
                span = searched["lr"]
                assert span["low"] < settings[name]["training"]["lr"] < span["high"]


def test_what_a_training_takes_is_its_start_its_evaluations_and_its_updates() -> None:
    facts = Facts(shape=(28, 28, 1), examples=9_000, classes=10)
    ten, twenty, forty = (
        expected_seconds("vae", facts, {"total_examples": n, "evaluations": 2}, cores=1)
        for n in (10_000, 20_000, 40_000)
    )
    assert forty - twenty == pytest.approx(2 * (twenty - ten))
    assert ten - (twenty - ten) == pytest.approx(12 + 2 * 3)


class Noise:
    """Random images of some size, as the loop wants its data."""

    def __init__(self, shape: tuple[int, ...], batch: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randint(0, 256, (64, *shape), generator=generator, dtype=torch.uint8)
        self.size = batch

    def batch(self, step: int, rank: int, world_size: int) -> Batch:
        return Batch(self.x[: self.size], None)

    def reference(self) -> Batch:
        return Batch(self.x, None)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_hundred_large_colour_images_are_learned_from(family: str) -> None:
    """Two updates: the loop stops at a loss or gradient that is not finite."""
    settings, _ = defaults(Facts(shape=(64, 64, 3), examples=100))
    chosen = settings[family]
    domain = {"kind": "image", "height": 64, "width": 64, "channels": 3, "levels": 256}
    spec = {"family": family, "config": chosen["model"], "domain": domain, "classes": 0}
    size = chosen["training"]["batch_size"]
    training = TrainingConfig(**{**chosen["training"], "total_examples": 2 * size, "evaluations": 1, "reports": 1})
    seen: list[int] = []
    loop.train(build(spec), Noise((64, 64, 3), size), training, seed=0, report=lambda told: seen.append(told.examples))
    assert seen == [2 * size]


def test_a_budget_is_start_evaluations_and_updates() -> None:
    """At 1,000 examples a second and 10 s an evaluation 5 minutes are 12 s + 2 x 10 s + 268 s; of a short one a
    quarter may go into evaluations, unless their number is set."""
    speed, training = Speed(per_example=1e-3, per_evaluation=10.0), TrainingConfig(batch_size=8, evaluations=2)
    assert speed.fitting(300, training) == (268_000, 2)
    assert speed.fitting(60, training) == (38_000, 1)
    assert speed.fitting(60, training, as_many=True) == (28_000, 2)
    assert speed.fitting(300, TrainingConfig(evaluations=2)) == (1_046 * 256, 2)  # whole batches
    said = ("90s", "90", "5m", "5 min", "1h30m", "1.5h")
    assert [parse_duration(text) for text in said] == [90, 90, 300, 300, 5_400, 5_400]
    with pytest.raises(
        ValueError, match="budget  is too short: starting, 1 evaluations and 100 updates take 23 s here"
    ):
        speed.fitting(20, training)


def test_facts_are_those_of_what_was_prepared() -> None:
    domain = {"kind": "image", "height": 28, "width": 30, "channels": 3, "levels": 256}
    manifest = {"domain": domain, "splits": {"train": {"count": 77}}, "class_names": ["a", "b"]}
    assert facts_of(manifest) == Facts(shape=(28, 30, 3), examples=77, classes=2)
    rows = {"domain": {"kind": "table", "columns": [{}, {}, {}]}, "splits": {"train": {"count": 5}}, "class_names": []}
    assert facts_of(rows) == Facts(kind="table", columns=3, examples=5)
