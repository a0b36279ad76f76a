"""The reference (yardstick) as `features` makes it: which rows each of its numbers is made of."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from evaluation_stubs import MemoryDataset, frechet_by_scipy, image_dataset, table_dataset
from scipy.stats import ks_2samp
from torch import nn

from pipelines.evaluation.config import ReferenceConfig
from pipelines.evaluation.domains import evaluation_domain
from pipelines.evaluation.domains.grid import jittered
from pipelines.evaluation.domains.table import noisy
from pipelines.evaluation.reference.fit import fit, fixed_threads
from pipelines.evaluation.reference.networks import network
from pipelines.evaluation.reference.reference import Reference, standardized
from pipelines.evaluation.reference_builder import build_reference

SIZES = {"train": 300, "val": 150, "test": 120, "anomaly": 30}
SETTINGS = ReferenceConfig(examples=4_000, rows=200, samples=180, bootstrap=100, components=(1, 4), learning_rate=5e-3)


def made(dataset: MemoryDataset, folder: Path, settings: ReferenceConfig, seed: int = 0) -> SimpleNamespace:
    """A reference, made and read back, with the rows that it keeps."""
    build_reference(dataset, "rows", folder / "yardstick", seed=seed, settings=settings)
    yardstick = Reference.open(folder / "yardstick")
    reference = yardstick.facts["reference"]
    return SimpleNamespace(
        dataset=dataset,
        yardstick=yardstick,
        floors={name: SimpleNamespace(**entry) for name, entry in reference["floors"].items()},
        baseline={name: SimpleNamespace(**entry) for name, entry in reference["baseline"].items()},
        rows={split: dataset.split(split).take(index) for split, index in yardstick.index.items()},
    )


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Images of three classes, some without a label, and more training rows than are kept."""
    dataset = image_dataset(SIZES)
    for split in ("train", "test"):
        dataset.rows[split].label[::10] = -1
    dataset.rows["val"].x[:, :, 1:] = 110  # varies less than training and test rows
    dataset.rows["val"].x[:, 1] = 110
    return made(dataset, tmp_path_factory.mktemp("images"), SETTINGS)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Rows of tables."""
    return made(
        table_dataset({s: n for s, n in SIZES.items() if s != "anomaly"}), tmp_path_factory.mktemp("table"), SETTINGS
    )


def test_rows_of_every_split_are_kept_in_random_order(images: SimpleNamespace):
    assert set(images.rows) == {"train", "val", "test"}
    for split, n in (("train", 200), ("val", 150), ("test", 120)):
        index = images.yardstick.index[split]
        assert len(set(index.tolist())) == len(index) == n
        assert (index.diff() < 0).double().mean() == pytest.approx(0.5, abs=0.15)
        assert torch.equal(images.yardstick.labels[split], images.rows[split].label)
    label = images.rows["train"].label
    assert images.yardstick.facts["label_counts"] == [int((label == c).sum()) for c in range(3)]


def test_features_of_the_kept_rows_are_kept_standardized_over_the_training_rows(images: SimpleNamespace):
    for space in images.yardstick.spaces.values():
        for split, rows in images.rows.items():
            assert space.rows[split] == pytest.approx(space.features(rows.x), abs=1e-5), split
        assert space.rows["baseline"] == pytest.approx(space.features(images.yardstick.baseline.x), abs=1e-5)
        assert space.rows["train"].mean(0) == pytest.approx(np.zeros(64), abs=1e-4)
        spread = space.rows["train"].std(0, ddof=1)
        assert np.abs(spread - 1)[spread > 0.01].max() < 1e-3
        assert (spread > 0.01).mean() > 0.8
    assert not np.allclose(*(space.rows["test"] for space in images.yardstick.spaces.values()))


@pytest.mark.parametrize("kind", ["images", "table"])
def test_floors_are_the_training_rows_and_the_baseline_its_samples(kind: str, request: pytest.FixtureRequest):
    found = request.getfixturevalue(kind)
    assert found.yardstick.facts["reference"]["samples"] == 180
    for name, space in found.yardstick.spaces.items():
        suffix = "" if name == "classifier" else "_random"
        for scores, rows in ((found.floors, "train"), (found.baseline, "baseline")):
            expected = frechet_by_scipy(space.rows[rows][:180], space.rows["test"])
            entry = scores[f"frechet{suffix}"]
            assert entry.value == pytest.approx(expected, rel=1e-3), (name, rows)
            assert entry.low < entry.value < entry.high
    label, kept = found.yardstick.baseline.label, found.rows["train"].label
    share = torch.bincount(kept[kept >= 0]) / (kept >= 0).sum()
    assert (torch.bincount(label) - 180 * share).abs().max() < 1


def test_labels_are_recognized_in_test_rows_and_in_the_baselines_samples(images: SimpleNamespace):
    judge, to_inputs = images.yardstick.label_classifier, images.yardstick.inputs
    test, drawn = images.rows["test"], images.yardstick.baseline
    for rows, scores in ((test, images.floors), (drawn, images.baseline)):
        known = rows.label >= 0
        right = judge(to_inputs(rows.x[known])).argmax(1) == rows.label[known]
        assert scores["accuracy"].value == pytest.approx(float(right.double().mean()))
    facts = images.yardstick.facts["networks"]
    assert facts["judge"]["accuracy"]["test"] == pytest.approx(images.floors["accuracy"].value, abs=1e-6)
    assert facts["judge"]["accuracy"]["test"] > 0.6  # of three classes
    assert facts["classifier"]["accuracy"]["test"] > 0.6
    assert set(facts["classifier"]["accuracy"]) == {"train", "val", "test"}


def test_the_baselines_numbers_follow_from_the_kept_rows(images: SimpleNamespace):
    train, test, baseline = images.rows["train"], images.rows["test"], images.baseline
    known = train.label >= 0
    components = images.yardstick.facts["baseline"]["components"]
    assert components == 1  # more would vary more than the validation rows do
    # bits by counting levels within classes
    share = torch.bincount(train.label[known]) / known.sum()
    joint = []
    for c in range(3):
        pixels = train.x[train.label == c].flatten(1)
        table = torch.stack([(pixels == level).sum(0) for level in range(256)]).double() + 1 / 256
        table /= table.sum(0)
        joint.append(share[c].log() + table.gather(0, test.x.flatten(1).long()).log().sum(1))
    bits = -torch.stack(joint).logsumexp(0) / (6 * math.log(2))
    assert baseline["bits_per_dim"].value == pytest.approx(float(bits.mean()), rel=1e-6)
    # reconstruction from principal components of the labelled training rows
    flat, new = (rows.flatten(1).double().numpy() / 255 for rows in (train.x[known], test.x))
    axes = np.linalg.svd(flat - flat.mean(0), full_matrices=False)[2][:components]
    rebuilt = ((new - flat.mean(0)) @ axes.T @ axes + flat.mean(0)).clip(0, 1)
    error = math.sqrt(np.square((rebuilt * 255).round() / 255 - new).mean())
    assert baseline["reconstruction_rmse"].value == pytest.approx(error, rel=0.01)
    assert baseline["code_bytes"].value == 2 * components
    assert baseline["code_rmse"].value == pytest.approx(error, rel=0.05)
    assert baseline["probe_accuracy"].value > 0.9
    # anomalies are those that the dataset keeps
    assert {name for name in baseline if name.startswith("anomaly_auroc")} == {"anomaly_auroc", "anomaly_auroc_known"}
    assert baseline["anomaly_auroc"].value > 0.95
    # of the ways to fill in hidden cells the best
    ways = images.yardstick.facts["imputation"]
    assert set(ways) == {"mean", "knn", "iterative"}
    best = min(way["imputation_crps"] for way in ways.values())
    assert baseline["imputation_crps"].value == pytest.approx(best, abs=1e-6)


def test_copies_are_looked_for_in_every_training_row(tmp_path: Path):
    """Of 64 possible images the 90 training rows are many, the 30 that are kept few."""
    dataset = image_dataset({"train": 90, "val": 30, "test": 60})
    dataset.domain["levels"] = 2
    for seed, rows in enumerate(dataset.rows.values()):
        bits = torch.randint(2, rows.x.shape, generator=torch.Generator().manual_seed(seed))
        rows.x.copy_(255 * bits)
    found = made(dataset, tmp_path, ReferenceConfig(examples=640, rows=30, samples=60, bootstrap=3, components=(2,)))
    every, kept = dataset.split("train").all().x, found.rows["train"].x
    drawn, test = found.yardstick.baseline.x, found.rows["test"].x
    exact = {
        name: float((rows.flatten(1)[:, None] == train.flatten(1)[None]).all(2).any(1).double().mean())
        for name, rows, train in (("drawn", drawn, every), ("test", test, every), ("kept", drawn, kept))
    }
    assert found.baseline["exact_copies"].value == pytest.approx(exact["drawn"])
    assert found.baseline["exact_copies"].floor == pytest.approx(exact["test"])
    assert exact["kept"] < exact["drawn"] - 0.1
    assert found.yardstick.facts["reference"]["samples"] == 30


def test_rows_of_tables_have_floors_and_a_baseline_of_their_own(table: SimpleNamespace):
    test, train, drawn = (table.rows["test"].x, table.rows["train"].x[:180], table.yardstick.baseline.x[:180])
    for rows, scores in ((train, table.floors), (drawn, table.baseline)):
        distances = [ks_2samp(a[~a.isnan()], b[~b.isnan()]).statistic for a, b in zip(test.T[:2], rows.T, strict=False)]
        shares = [np.bincount(side[:, 2].long(), minlength=3) / len(side) for side in (test, rows)]
        distances.append(np.abs(shares[0] - shares[1]).sum() / 2)
        assert scores["column_distance"].value == pytest.approx(np.mean(distances), abs=1e-9)
        assert scores["utility_auroc"].value > 0.97
    assert table.yardstick.facts["networks"]["judge"]["accuracy"]["test"] > 0.95
    assert {"nats_per_row", "anomaly_auroc_mixed", "imputation_accuracy"} <= set(table.baseline)
    of_rows = {"gap_share", "impossible_pairs", "tail_quantile", "tail_excess", "shapes", "trends", "c2st_trees"}
    assert of_rows <= set(table.baseline)
    assert of_rows <= set(table.floors)
    for scores in (table.floors, table.baseline):  # without gaps in categories both count the same
        assert scores["shapes"].value == pytest.approx(1 - scores["column_distance"].value)


@pytest.mark.parametrize("kind", ["image", "table"])
def test_without_labels_clusters_stand_for_them(kind: str, tmp_path: Path):
    dataset = (image_dataset if kind == "image" else table_dataset)({"train": 200, "val": 40, "test": 60})
    for rows in dataset.rows.values():
        rows.label.fill_(-1)
    settings = ReferenceConfig(examples=640, samples=150, bootstrap=3, components=(2,), clusters=3)
    found = made(dataset, tmp_path, settings)
    assert found.yardstick.label_classifier is None
    assert found.yardstick.facts["labels"].startswith("none given: 3 k-means clusters")
    assert not {"accuracy", "probe_accuracy", "utility_auroc"} & (set(found.baseline) | set(found.floors))
    assert found.yardstick.facts["label_counts"] == [0] * len(dataset.class_names)
    names = found.yardstick.facts["networks"]
    assert names["classifier"]["classes"] == (3 if kind == "image" else 0)
    assert set(found.yardstick.facts["baseline"]["mixtures"]) == {"0", "1", "2"}


def test_the_same_seed_gives_the_same_bytes_another_seed_others(tmp_path: Path):
    dataset = image_dataset({"train": 60, "val": 30, "test": 40})
    settings = ReferenceConfig(examples=320, bootstrap=3, samples=40, components=(2,))
    for name, seed in (("one", 0), ("two", 0), ("other", 1)):
        build_reference(dataset, "rows", tmp_path / name, seed=seed, settings=settings)
    contents = {name: {p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in ("one", "two", "other")}
    assert contents["one"] == contents["two"]
    for file in contents["one"]:
        assert contents["one"][file] != contents["other"][file], file
    facts = json.loads(contents["other"]["yardstick.json"])
    assert (facts["seed"], facts["data_digest"], facts["dataset"]) == (1, dataset.digest, "rows")


def test_too_few_rows_are_refused(tmp_path: Path):
    for sizes, split in (({"train": 1, "test": 10}, "train"), ({"train": 20, "test": 1}, "test")):
        with pytest.raises(ValueError, match=f"at least 2 rows in the split '{split}' of rows, got 1"):
            build_reference(image_dataset(sizes), "rows", tmp_path / "yardstick", seed=0, settings=SETTINGS)


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("kind", ["image", "table"])
def test_of_a_handful_of_rows_is_measured_what_can_be(kind: str, labelled: bool, tmp_path: Path):
    """Six rows to learn from and two of either other split: what a card makes of ten examples."""
    dataset = (image_dataset if kind == "image" else table_dataset)({"train": 6, "val": 2, "test": 2})
    if not labelled:
        for rows in dataset.rows.values():
            rows.label.fill_(-1)
    settings = ReferenceConfig(examples=64, samples=30, bootstrap=20, components=(4,))
    found = made(dataset, tmp_path, settings)
    measured = set(found.floors)
    assert {"frechet", "kernel"} <= measured
    assert not {"precision", "recall", "density", "coverage", "c2st", "c2st_trees"} & measured
    for entry in (*found.floors.values(), *found.baseline.values()):
        assert math.isfinite(entry.value)
        assert entry.low is None or entry.low <= entry.high
    assert len(found.yardstick.baseline.x) == 30


# Spaces, networks and their training


def test_a_space_is_standardized_but_for_what_never_varies():
    class Twice(nn.Module):
        def features(self, y):
            return torch.cat([2 * y.flatten(1), torch.full((len(y), 1), 7.0)], 1)

    rows = image_dataset({"train": 1100}).split("train").all().x
    to_inputs = evaluation_domain(image_dataset({"train": 1}).domain).encoder
    space = standardized("classifier", Twice(), to_inputs, rows)
    found = space.features(rows)
    assert found.mean(0) == pytest.approx(np.zeros(7), abs=1e-4)
    assert found.std(0, ddof=1) == pytest.approx([1.0] * 6 + [0.0], abs=1e-4)
    moved = (rows.int() + 1).to(torch.uint8)
    step = 2 / 127.5 / (2 * rows.flatten(1).double().std(0) / 127.5)
    assert space.features(moved)[0] - found[0] == pytest.approx([*step.tolist(), 0.0], rel=1e-3, abs=1e-6)
    plain = Twice()
    plain.standardized = False
    kept = standardized("classifier", plain, to_inputs, rows)
    assert kept.features(moved)[0] - kept.features(rows)[0] == pytest.approx([2 / 127.5] * 6 + [0], abs=1e-5)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 28, 20), (12,)])
@pytest.mark.parametrize("role", ["classifier", "judge", "random"])
def test_networks_are_a_function_of_their_seed(role: str, shape: tuple[int, ...]):
    domain = evaluation_domain({"kind": "image" if len(shape) == 3 else "table"})
    classes = 0 if role == "random" or (role == "classifier" and len(shape) == 1) else 5
    one, two, other = (network(domain, role, shape=shape, classes=classes, seed=seed).eval() for seed in (0, 0, 1))
    x = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    assert torch.equal(one.features(x), two.features(x))
    assert not torch.equal(one.features(x), other.features(x))
    if classes:
        assert one(x).shape == (3, 5)
    if role == "random":
        weights = [p.detach() for p in one.parameters() if p.ndim > 1]
        assert [float(w.std()) * w[0].numel() ** 0.5 for w in weights] == pytest.approx([1] * len(weights), rel=0.12)
    if role != "judge":
        assert one.features(x).shape == (3, min(64, *shape) if role == "classifier" and len(shape) == 1 else 64)


def test_a_classifier_is_trained_on_every_row_alike_in_a_new_order_each_epoch():
    """What a network is shown, by its first value: 10 rows, 3 a step, 8 steps of as many epochs as it takes."""
    shown, labels = [], torch.arange(10) % 2

    class Shown(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(2))

        def forward(self, y):
            assert self.training
            shown.append((y[:, 0] * 2).round().long())
            return self.weight.expand(len(y), 2) + y[:, :1]

    number = {"name": "a", "type": "continuous", "mean": 0.0, "std": 2.0, "min": 0.0, "max": 9.0, "missing": 0}
    x, to_inputs = (
        torch.arange(10.0).double()[:, None],
        evaluation_domain({"kind": "table", "columns": [number]}).encoder,
    )
    options = {"examples": 24, "batch_size": 3, "learning_rate": 0.1}
    trained = Shown()
    fit(trained, x, labels, to_inputs, seed=0, **options)
    assert [len(rows) for rows in shown] == [3] * 8
    epochs = [torch.cat(shown[start : start + 3]).tolist() for start in (0, 3)]
    assert all(len(set(epoch)) == 9 for epoch in epochs)
    assert epochs[0] != epochs[1]
    first, shown[:] = torch.cat(shown), []
    fit(Shown(), x, labels, to_inputs, seed=1, **options)
    assert not torch.equal(first, torch.cat(shown))
    assert 0 < trained.weight.abs().max() < 8 * 0.1  # no step of Adam is longer than the learning rate
    assert not trained.training
    assert not any(parameter.requires_grad for parameter in trained.parameters())


def test_augmentation_is_slight():
    """A bright dot at the edge of the middle moves by at most its rotation, scaling and shift; rows by 5 %."""
    streams = torch.Generator().manual_seed(0)
    x = torch.zeros(500, 1, 41, 41)
    x[:, :, 20, 30] = 1.0  # ten pixels right of the middle
    moved = jittered(x, streams)
    place = moved.flatten(1) / moved.flatten(1).sum(1, keepdim=True)
    grid = torch.arange(41.0)
    down, right = (place.view(-1, 41, 41).sum(axis) @ grid for axis in (2, 1))
    assert float((right - 30).abs().max()) < 10 * 0.15 + 41 * 0.08 + 1
    assert float((down - 20).abs().max()) < 10 * math.sin(math.radians(10)) * 1.2 + 41 * 0.08 * 1.2 + 1
    # uniform shifts of 8 % and scales of 10 % (or turns of 10 degrees): the deviations of both together
    shift = 41 * 0.08 / math.sqrt(3)
    assert float(right.std()) == pytest.approx(math.hypot(shift, 10 * 0.1 / math.sqrt(3)), rel=0.12)
    assert float(down.std()) == pytest.approx(math.hypot(shift, 10 * math.radians(10) / math.sqrt(3)), rel=0.12)
    rows = torch.zeros(200, 50)
    assert float(noisy(rows, streams).std()) == pytest.approx(0.05, rel=0.05)


def test_a_reference_is_made_by_one_thread_and_leaves_as_many_as_there_were():
    """The order of a sum, hence a digest, depends on how many there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with fixed_threads():
            within = torch.get_num_threads()
        assert (within, torch.get_num_threads()) == (1, 3)
    finally:
        torch.set_num_threads(before)
