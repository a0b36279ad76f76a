"""Which rows, labels, seeds and numbers of draws a model is asked with, and what is made of its answers.

The formulas are tested in `test_yardstick.py`; here a model with known answers is measured, and every
reported number is compared with one that follows from its rules.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from evaluation_stubs import (
    FirstPixel,
    KnownModel,
    MemoryDataset,
    brightness,
    drawn_images,
    frechet_by_scipy,
    image_dataset,
    measure,
    pixel_of,
    points,
    reference,
    table_dataset,
)
from PIL import Image
from scipy.stats import ks_2samp, norm
from sklearn.metrics import average_precision_score, roc_auc_score

from data.dataset import Examples
from pipelines.evaluation import inference
from pipelines.evaluation.domains.table import cell_text
from pipelines.evaluation.validation import validation_score
from pipelines.report.metrics import explained

KEPT = {"train": 1100, "val": 80, "test": 1100}
"""Rows that the reference keeps: as many of train as of test, and more than the 1,000 asked about one by one."""


def made(
    dataset: MemoryDataset, kept: dict[str, int], samples: int, *, judge: bool = True, baseline: Examples | None = None
):
    """A reference that keeps rows of each split in random order."""
    random = np.random.default_rng(1)
    index = {s: torch.from_numpy(random.permutation(len(dataset.split(s)))[:n]) for s, n in kept.items()}
    if baseline is None:
        baseline = dataset.split("val").take(random.integers(0, len(dataset.split("val")), 1300))
    return reference(dataset, index, baseline, samples, judge=FirstPixel() if judge else None)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A model of images measured with more samples than a chunk and than the reference's training rows."""
    dataset = image_dataset({"train": 1300, "val": 90, "test": 1210, "anomaly": 70})
    label = dataset.rows["test"].label
    label[torch.arange(len(label)) % 5 > 1] += 1  # in the test rows most pixels tell another class than in training
    label[label > 2] = 0
    label[::10] = -1
    yardstick = made(dataset, KEPT, 1100)
    model, other = KnownModel(dataset), KnownModel(dataset)
    folder = tmp_path_factory.mktemp("images")
    options = {"samples": 1400, "bootstrap": 200, "bound_samples": 3}
    found = measure(model, dataset, yardstick, folder / "one", **options)
    again = measure(other, dataset, yardstick, folder / "other", **options | {"samples": 1100, "seed": 1})
    train, test = (dataset.split(split).take(yardstick.index[split]) for split in ("train", "test"))
    return SimpleNamespace(
        dataset=dataset,
        yardstick=yardstick,
        model=model,
        other=other,
        found=found,
        again=again,
        metrics={name: SimpleNamespace(**entry) for name, entry in found["metrics"].items()},
        train=train,
        test=test,
        folder=folder / "one",
    )


def test_as_many_samples_are_drawn_as_asked_for_each_chunk_anew(images: SimpleNamespace):
    drawn = images.model.rows("sample")
    assert len(drawn) == 1400
    assert len({row.numpy().tobytes() for row in drawn[:, :, 1:]}) > 1390  # no chunk repeats another
    assert len(set(images.model.noise["sample"])) == len(images.model.noise["sample"]) > 1
    assert not set(images.model.noise["sample"]) & set(images.other.noise["sample"])  # another seed, other draws


def test_labels_are_asked_for_in_the_training_rows_proportions_and_judged_one_by_one(images: SimpleNamespace):
    counts = np.bincount(images.train.label, minlength=3)
    wanted = torch.cat(images.model.told["sample"])
    assert np.abs(np.bincount(wanted, minlength=3) - 1400 * counts / counts.sum()).max() < 1
    assert images.metrics["accuracy"].value == pytest.approx(float((wanted != 2).double().mean()))
    assert len(set(wanted[:30].tolist())) == 3  # in random order


def test_distances_are_to_the_test_rows_in_every_space(images: SimpleNamespace):
    generated = points(images.model.rows("sample")[:1100])
    expected = frechet_by_scipy(generated, points(images.test.x))
    assert images.metrics["frechet"].value == pytest.approx(expected, rel=1e-5)
    assert images.metrics["frechet_random"].value == pytest.approx(9 * expected, rel=1e-5)
    assert images.found["settings"] == {
        "samples": 1400,
        "compared": 1100,
        "reference_rows": 1100,
        "bootstrap": 200,
        "bound_samples": 3,
        "seed": 0,
    }


def test_floors_and_baseline_of_as_many_rows_stand_as_they_are(images: SimpleNamespace):
    metrics = images.metrics
    assert (metrics["frechet"].floor, metrics["frechet"].baseline) == (0.125, 0.375)
    assert (metrics["accuracy"].floor, metrics["accuracy"].baseline) == (0.875, 0.625)
    assert (metrics["bits_per_dim"].baseline, metrics["bits_per_dim_bound"].baseline) == (7.5, 7.5)
    assert metrics["reconstruction_rmse"].floor is metrics["reconstruction_rmse"].baseline is None


def test_floors_and_baseline_of_fewer_rows_are_made_anew(images: SimpleNamespace, tmp_path: Path):
    yardstick = made(images.dataset, KEPT, 1100)
    found = measure(KnownModel(images.dataset), images.dataset, yardstick, tmp_path, samples=150)["metrics"]
    test = points(images.test.x)
    assert found["frechet"]["floor"] == pytest.approx(frechet_by_scipy(points(images.train.x[:150]), test), rel=1e-5)
    expected = frechet_by_scipy(points(yardstick.baseline.x[:150]), test)
    assert found["frechet"]["baseline"] == pytest.approx(expected, rel=1e-5)
    assert found["accuracy"]["floor"] == 0.875  # does not depend on the number of samples


def test_no_more_samples_are_compared_than_the_baseline_has_rows(
    images: SimpleNamespace, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    yardstick = made(images.dataset, KEPT, 1100, baseline=images.dataset.split("val").take(np.arange(90)))
    model = KnownModel(images.dataset)
    found = measure(model, images.dataset, yardstick, tmp_path, samples=150)
    test = points(images.test.x)
    drawn = frechet_by_scipy(points(model.rows("sample")[:90]), test)
    assert found["metrics"]["frechet"]["value"] == pytest.approx(drawn, rel=1e-5)
    floor = frechet_by_scipy(points(images.train.x[:90]), test)
    assert found["metrics"]["frechet"]["floor"] == pytest.approx(floor, rel=1e-5)
    assert found["settings"]["compared"] == 90
    assert "90 of 150 samples" in caplog.text


def test_each_row_is_asked_about_once_in_order_and_training_rows_only_to_tell_them(images: SimpleNamespace):
    model, asked = images.model, images.test.x[:1000]
    for task in ("log_prob", "reconstruct"):
        assert torch.equal(model.rows(task), asked), task
    assert torch.equal(model.rows("elbo"), torch.cat([asked, images.train.x[:1000]]))
    assert torch.equal(model.rows("encode"), torch.cat([images.train.x[:1000], asked]))
    anomalies = images.dataset.split("anomaly").all().x
    assert torch.equal(model.rows("anomaly_score"), torch.cat([asked, anomalies]))
    assert torch.equal(model.rows("impute"), asked[:100])
    assert set(model.told["elbo"]) == {3}
    assert {draws for _, draws in model.told["impute"]} == {8}


def test_every_task_draws_from_the_seed_anew_for_every_chunk(images: SimpleNamespace):
    for task in ("log_prob", "elbo", "reconstruct", "impute", "anomaly_score"):
        chunks, other = images.model.noise[task], images.other.noise[task]
        within = chunks[: -(-1000 // inference.CHUNK)]
        assert len(set(within)) == len(within), task
        assert not set(chunks) & set(other), task
    cells = [torch.cat([observed for observed, _ in m.told["impute"]]) for m in (images.model, images.other)]
    assert torch.equal(*cells)  # but all models fill in the same cells
    assert torch.equal((~cells[0]).flatten(1).sum(1), torch.ones(100, dtype=torch.int64))  # a quarter of 2 x 3


def test_every_number_follows_from_the_models_rules(images: SimpleNamespace):
    x, metrics = images.test.x[:1000].double(), images.metrics
    light = x.flatten(1).mean(1)
    assert metrics["bits_per_dim"].value == pytest.approx(float(light.mean()) / (6 * math.log(2)), rel=1e-6)
    bound = float(light.mean() + 12 / 3) / (6 * math.log(2))
    assert metrics["bits_per_dim_bound"].value == pytest.approx(bound, rel=1e-6)
    error = 0.4 * math.sqrt((x < 130).double().mean())
    assert metrics["reconstruction_rmse"].value == pytest.approx(error, rel=1e-6)
    kept = 0.2 * math.sqrt((x[:200] < 130).double().mean())
    assert metrics["code_rmse"].value == pytest.approx(kept, rel=1e-6)
    assert metrics["code_bytes"].value == 12
    assert images.found["code_size"] == 6
    half = images.model.asked["decode"][-1]
    assert torch.equal(half, half.half().float())  # what is decoded are codes of 16 bits
    label = images.test.label[:1000]
    as_taught = (x[:, 0, 0, 0] == pixel_of(label))[label >= 0].double().mean()
    assert metrics["probe_accuracy"].value == pytest.approx(float(as_taught), abs=1e-9)  # by the first pixel
    assert as_taught < 0.45
    odd = brightness(images.dataset.split("anomaly").all().x)
    assert images.found["held_out_scores"] == pytest.approx(light.tolist(), rel=1e-6)  # of the test rows only
    truth, scores = np.repeat([0, 1], [1000, 70]), np.concatenate([light, odd])
    for name, kind in (("anomaly_auroc", "mean"), ("anomaly_auroc_known", "known")):
        assert metrics[name].value == pytest.approx(roc_auc_score(truth, scores), abs=1e-6), kind
    assert metrics["anomaly_ap"].value == pytest.approx(average_precision_score(truth, scores), abs=1e-6)
    # two of eight draws 0.2 too small, the others 0.2 too large: of 56 ordered pairs 24 are 0.4 apart
    assert metrics["imputation_crps"].value == pytest.approx(0.2 - 0.4 * 24 / 56 / 2, rel=1e-6)
    assert metrics["imputation_rmse"].value == pytest.approx(0.1, rel=1e-6)


def test_intervals_are_as_wide_as_the_rows_spread_says(images: SimpleNamespace):
    """Normal intervals by the delta method: 200 resamples tell widths a third larger or smaller."""
    x, metrics = images.test.x[:1000].double(), images.metrics
    light, dark = x.flatten(1).mean(1).numpy(), 0.16 * (x < 130).flatten(1).double().mean(1).numpy()
    odd = brightness(images.dataset.split("anomaly").all().x).numpy()
    above = odd[:, None] > light[None]
    area = math.sqrt(above.mean(1).var() / 70 + above.mean(0).var() / 1000)  # DeLong et al., 1988
    right = metrics["accuracy"].value
    for name, error in {
        "bits_per_dim": light.std() / math.sqrt(1000) / (6 * math.log(2)),
        "reconstruction_rmse": dark.std() / math.sqrt(1000) / (2 * math.sqrt(dark.mean())),
        "accuracy": math.sqrt(right * (1 - right) / 1400),
        "anomaly_auroc": area,
        "anomaly_auroc_known": area,
        "c2st": math.sqrt(metrics["c2st"].value * (1 - metrics["c2st"].value) / 2200),
    }.items():
        entry = metrics[name]
        assert entry.high - entry.low == pytest.approx(2 * norm.ppf(0.975) * error, rel=0.3), name
        assert entry.low < entry.value < entry.high, name
    for name in (  # the resamples are of the run's seed, the values are not
        *("bits_per_dim", "bits_per_dim_bound", "reconstruction_rmse", "code_rmse", "probe_accuracy"),
        *("anomaly_auroc", "anomaly_auroc_known", "membership_density"),
    ):
        one, other = (found["metrics"][name] for found in (images.found, images.again))
        assert one["value"] == other["value"], name
        assert one["low"] != other["low"], name


STATED = {
    "frechet": ("squared feature deviations", "lower"),
    "kernel": ("kernel", "lower"),
    "precision": ("share", "higher"),
    "recall": ("share", "higher"),
    "density": ("real neighbourhoods around a sample", "higher"),
    "coverage": ("share", "higher"),
    "c2st": ("share", "lower"),
    "accuracy": ("share", "higher"),
    "near_copies": ("share", "lower"),
    "exact_copies": ("share", "lower"),
    "closest_record": ("share", "lower"),
    "membership_distance": ("area", "lower"),
    "membership_density": ("area", "lower"),
    "bits_per_dim": ("bits/dim", "lower"),
    "reconstruction_rmse": ("unit range", "lower"),
    "probe_accuracy": ("share", "higher"),
    "code_bytes": ("bytes", "lower"),
    "code_rmse": ("unit range", "lower"),
    "anomaly_auroc": ("area", "higher"),
    "anomaly_ap": ("area", "higher"),
    "imputation_crps": ("unit range", "lower"),
    "imputation_rmse": ("unit range", "lower"),
}


def test_every_metric_says_its_unit_and_which_direction_is_better(images: SimpleNamespace, table: SimpleNamespace):
    for name in (*images.metrics, *table.found["metrics"]):
        title, line = explained(name)
        assert title != name.replace("_", " "), name  # the report has words for it
        assert line.endswith("."), name
    stated = STATED | {f"{name}_random": STATED[name] for name in ("frechet", "kernel")}
    stated |= {"bits_per_dim_bound": STATED["bits_per_dim"], "anomaly_auroc_known": STATED["anomaly_auroc"]}
    assert {name: (entry.unit, entry.better) for name, entry in images.metrics.items()} == stated
    assert set(images.found["seconds"]) == {
        *("sample", "draw", "log_prob", "elbo", "reconstruct", "codes", "anomaly", "impute"),
    }


def test_the_copy_check_knows_every_training_row(images: SimpleNamespace, tmp_path: Path):
    """300 samples of which 30 are a training row that the reference does not keep."""
    outside = next(i for i in range(1300) if i not in set(images.yardstick.index["train"].tolist()))
    copied = images.dataset.split("train").all().x[outside]

    def draw(n, label, streams):
        x = drawn_images(n, label, streams)
        x[::10] = copied
        return x

    found = measure(KnownModel(images.dataset, draw), images.dataset, images.yardstick, tmp_path, samples=300)
    assert found["metrics"]["exact_copies"]["value"] == pytest.approx(0.1)
    assert found["metrics"]["exact_copies"]["floor"] == 0
    assert found["metrics"]["near_copies"]["floor"] == pytest.approx(0.01)
    assert found["copies"]["clean"] is False
    assert images.found["copies"]["clean"] is True
    with Image.open(tmp_path / "nearest.png") as picture:
        above, below = (picture.crop((0, top, 48, top + 32)).tobytes() for top in (0, 34))
    assert above == below  # the first sample stands over the row it repeats


def test_pictures_show_what_was_measured(images: SimpleNamespace):
    """A pixel is a block of 16, an image 48 by 32, with 2 white pixels between images."""
    drawn = ("anomalies", "imputations", "interpolations", "nearest", "real", "reconstructions", "samples")
    sprites = [*(f"explorer-direction-{i}" for i in range(1, 5)), "explorer-ways"]
    assert images.found["pictures"] == sorted([*(f"{name}.png" for name in (*drawn, *sprites)), "explorer.json"])

    def shown(name: str, row: int, column: int, gaps: int = 0) -> list[list[int]]:
        with Image.open(images.folder / f"{name}.png") as picture:
            pixels = np.asarray(picture)
        top, left = row * 34 + gaps * 8, column * 50
        return pixels[top : top + 32 : 16, left : left + 48 : 16].tolist()

    asked = images.test.x[:1000, :, :, 0]
    order = np.argsort(-brightness(images.test.x[:1000]).float().numpy(), kind="stable")
    for row, column, rank in ((0, 0, 0), (0, 9, 9), (1, 0, 10)):
        assert shown("anomalies", row, column) == asked[order[rank]].tolist()
    assert shown("reconstructions", 0, 3) == asked[3].tolist()
    assert shown("reconstructions", 1, 3) == torch.where(asked[3] < 130, asked[3] + 102, asked[3]).tolist()
    assert shown("reconstructions", 2, 3, 1) == asked[13].tolist()
    observed = images.model.told["impute"][0][0][4, :, :, 0]
    assert shown("imputations", 0, 4) == asked[4].tolist()
    assert shown("imputations", 1, 4) == torch.where(observed, asked[4], 128).tolist()
    assert shown("imputations", 2, 4) == torch.where(observed, asked[4], asked[4] - 51).tolist()
    assert shown("imputations", 3, 4) == torch.where(observed, asked[4], asked[4] + 51).tolist()
    drawn, label = images.model.rows("sample")[:, :, :, 0], torch.cat(images.model.told["sample"])
    for column in range(3):
        assert shown("samples", 2, column) == drawn[label == column][2].tolist()
    label = images.test.label
    assert shown("real", 2, 1) == images.test.x[label == 1][2, :, :, 0].tolist()
    brighter = torch.where(asked < 130, asked + 51, asked)
    first = [brighter[label[:1000] == c][0].tolist() for c in range(3)]  # of each class, what its code says

    def sprite(name: str, row: int, step: int) -> list[list[int]]:
        with Image.open(images.folder / f"explorer-{name}.png") as picture:
            assert picture.size == (7 * 3, 3 * 2)
            return np.asarray(picture)[2 * row : 2 * row + 2, 3 * step : 3 * step + 3].tolist()

    for i in range(1, 5):
        assert [sprite(f"direction-{i}", row, 3) for row in range(3)] == first
        assert sprite(f"direction-{i}", 0, 2) != first[0]
    assert [(sprite("ways", row, 0), sprite("ways", row, 6)) for row in range(3)] == [
        (first[i], first[j]) for i, j in ((0, 1), (0, 2), (1, 2))
    ]
    kept = json.loads((images.folder / "explorer.json").read_text())
    assert (kept["examples"], kept["pairs"]) == (images.dataset.class_names, [[0, 1], [0, 2], [1, 2]])
    assert shown("interpolations", 1, 0) == brighter[1].tolist()  # from the second row to the eighth
    assert shown("interpolations", 1, 8) == brighter[7].tolist()


# Labels that decide everything


def test_resamples_keep_the_shares_of_labels(tmp_path: Path):
    """Rows that are a function of their label: resampling within labels changes nothing."""
    dataset = image_dataset({"train": 120, "val": 20, "test": 60})
    for rows in dataset.rows.values():
        rows.x.copy_(pixel_of(rows.label).view(-1, 1, 1, 1).expand(rows.x.shape))
    yardstick = made(dataset, {"train": 100, "test": 60}, 90)

    def draw(n, label, streams):
        return pixel_of(label).view(-1, 1, 1, 1).expand(n, 2, 3, 1).to(torch.uint8)

    found = measure(KnownModel(dataset, draw), dataset, yardstick, tmp_path, samples=90)["metrics"]
    assert found["frechet"]["low"] == pytest.approx(found["frechet"]["value"], abs=1e-6)
    assert found["frechet"]["high"] == pytest.approx(found["frechet"]["value"], abs=1e-6)
    assert found["accuracy"]["value"] == 1
    assert (found["exact_copies"]["value"], found["exact_copies"]["floor"]) == (1, 1)  # as are the test rows
    assert found["near_copies"]["floor"] == pytest.approx(1 + 0.01)
    pixels = 60 + 60 * dataset.rows["test"].label.double()[yardstick.index["test"]]
    assert found["bits_per_dim"]["value"] == pytest.approx(float(pixels.mean()) / (6 * math.log(2)), rel=1e-6)
    assert {"anomaly_auroc_quadrants", "anomaly_auroc_cut", "anomaly_auroc_blended"} < set(found)  # no anomalies kept


# Tables


def drawn_rows(n, label, streams):
    """Rows whose first number tells the wrong class."""
    second = 3 + streams.normal(n)
    x = torch.stack([torch.where(label == 1, -4.0, 4.0) + streams.normal(n), second, streams.integers(3, n).float()], 1)
    return x.double()


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A model of rows, measured with as many samples as the reference's training rows, and with fewer."""
    dataset = table_dataset({"train": 420, "val": 60, "test": 330})
    baseline = dataset.split("train").take(np.arange(400))
    model, folder = KnownModel(dataset, drawn_rows), tmp_path_factory.mktemp("table")
    yardstick = made(dataset, {"train": 400, "test": 310}, 400, judge=False, baseline=baseline)
    found = measure(model, dataset, yardstick, folder, samples=400)
    other = KnownModel(dataset, drawn_rows)
    few = measure(other, dataset, yardstick, folder / "few", samples=150, seed=1)
    train, test = (dataset.split(split).take(yardstick.index[split]) for split in ("train", "test"))
    shown = json.loads((folder / "exhibits.json").read_text())
    return SimpleNamespace(
        dataset=dataset,
        model=model,
        other=other,
        found=found,
        few=few,
        train=train,
        test=test,
        baseline=baseline,
        shown=shown,
    )


def distances(real: torch.Tensor, generated: torch.Tensor) -> list[float]:
    """The columns' distances by scipy and by counting."""
    known = [(a[~a.isnan()], b[~b.isnan()]) for a, b in zip(real.T, generated.T, strict=True)]
    numbers = [ks_2samp(a, b).statistic for a, b in known[:2]]
    shares = [np.bincount(side.long(), minlength=3) / len(side) for side in known[2]]
    return [*numbers, float(np.abs(shares[0] - shares[1]).sum() / 2)]


def test_rows_of_tables_are_compared_with_the_test_rows(table: SimpleNamespace):
    metrics, drawn, test = table.found["metrics"], table.model.rows("sample"), table.test
    assert metrics["column_distance"]["value"] == pytest.approx(np.mean(distances(test.x, drawn)), abs=1e-9)
    assert metrics["utility_auroc"]["value"] < 0.01  # taught by rows whose first number tells the wrong class
    assert metrics["utility_accuracy"]["value"] < 0.02
    known = float(
        (~test.x[:, 1].isnan()).double().mean()
    )  # of six encoded columns each known number is 51 deviations off
    assert metrics["reconstruction_rmse"]["value"] == pytest.approx(51 * math.sqrt((1 + known) / 6), rel=1e-6)
    assert metrics["nats_per_row"]["value"] == pytest.approx(float(brightness(test.x).mean()), rel=1e-5)
    assert {name: (entry["unit"], entry["better"]) for name, entry in metrics.items() if name not in STATED} == {
        "frechet_random": STATED["frechet"],
        "kernel_random": STATED["kernel"],
        "column_distance": ("share", "lower"),
        "association_distance": ("association", "lower"),
        "utility_auroc": ("area", "higher"),
        "utility_accuracy": ("share", "higher"),
        "gap_share": ("share", "lower"),
        "shapes": ("score", "higher"),
        "trends": ("score", "higher"),
        "impossible_pairs": ("share", "lower"),
        "tail_quantile": ("relative error", "lower"),
        "tail_excess": ("relative error", "lower"),
        "c2st_trees": ("share", "lower"),
        "attribute_inference": ("share", "lower"),
        "nats_per_row": ("nats", "lower"),
        "nats_per_row_bound": ("nats", "lower"),
        "anomaly_auroc_mixed": ("area", "higher"),
        "imputation_accuracy": ("share", "higher"),
    }
    assert metrics["imputation_crps"]["unit"] == metrics["code_rmse"]["unit"] == "standard deviations"


def test_floors_and_baseline_of_tables_are_of_as_many_rows(table: SimpleNamespace):
    metrics = table.few["metrics"]
    for part, rows in (("floor", table.train), ("baseline", table.baseline)):
        expected = np.mean(distances(table.test.x, rows.x[:150]))
        assert metrics["column_distance"][part] == pytest.approx(expected, abs=1e-9), part
        assert metrics["utility_auroc"][part] > 0.99, part  # their labels are true
        shares = table.test.x.isnan().double().mean(0) - rows.x[:150].isnan().double().mean(0)
        assert metrics["gap_share"][part] == pytest.approx(float(shares.abs().mean())), part


def test_known_cells_alone_are_hidden_and_judged(table: SimpleNamespace):
    x, (observed, draws) = table.model.asked["impute"][0], table.model.told["impute"][0]
    assert draws == 50
    assert len(set(table.model.noise["impute"])) == 3  # a hundred rows at a time, each with draws of its own
    odd, same = (model.rows("anomaly_score")[310:] for model in (table.model, table.other))
    assert torch.equal(odd.nan_to_num(), same.nan_to_num())  # models are shown the same strange rows, whatever the seed
    assert not torch.equal(odd.nan_to_num(), table.test.x.nan_to_num())
    hidden = torch.cat([~known for known, _ in table.model.told["impute"]])
    rows = table.model.rows("impute")
    assert len(rows) == 300
    assert not (hidden & rows.isnan()).any()
    assert hidden[~rows.isnan()].double().mean() == pytest.approx(0.3, abs=0.05)
    assert x.shape == observed.shape
    metrics = table.found["metrics"]
    # every number's draws are 51 off, two deviations of 25.5, 13 of 50 the other way; no category is named rightly
    assert metrics["imputation_accuracy"]["value"] == 0
    assert metrics["imputation_rmse"]["value"] == pytest.approx(25.5 * (37 - 13) / 50)


def test_the_exhibits_show_what_was_measured(table: SimpleNamespace):
    shown, test = table.shown, table.test.x
    cells = [[("" if v != v else f"{v:.5g}") for v in row[:2]] + ["xyz"[int(row[2])]] for row in test.tolist()]
    assert shown["header"] == ["a", "b", "c"]
    order = np.argsort(-brightness(test).float().numpy(), kind="stable")
    assert [row["cells"] for row in shown["tables"]["anomalies"]] == [cells[i] for i in order[:10]]
    assert [row["cells"] for row in shown["tables"]["reconstructions"][::2]] == cells[:5]
    real = [row for row in shown["tables"]["samples"] if row["name"].startswith("real")]
    assert [row["cells"] for row in real] == cells[:8]
    assert [row["name"] for row in real] == [f"real · {('low', 'high')[int(c)]}" for c in table.test.label[:8]]
    for name, both in {"reconstructions": ["test row", "rebuilt"], "nearest": ["sample", "training row"]}.items():
        assert [row["name"] for row in shown["tables"][name]] == both * 5
    assert {cell_text(math.nan, column) for column in table.dataset.domain["columns"]} == {""}
    truth = [row for row in shown["tables"]["imputations"] if row["name"] == "truth"]
    assert [row["cells"] for row in truth] == cells[:4]
    hidden = [(~observed).nonzero()[:, 0].tolist() for observed in table.model.told["impute"][0][0][:4]]
    assert [row["marks"] for row in truth] == hidden
    expected = distances(test, table.model.rows("sample"))
    assert [entry["distance"] for entry in shown["histograms"]] == pytest.approx(expected, abs=1e-4)
    low, high = np.quantile(test[:, 0], [0.01, 0.99])
    bars = shown["histograms"][0]
    assert len(bars["labels"]) == 16
    assert bars["labels"][0] == f"{low + (high - low) / 32:.4g}"
    assert bars["real"][0] == pytest.approx(float((test[:, 0] < low + (high - low) / 16).double().mean()), abs=1e-4)
    drawn = table.model.rows("sample")[:, 0]
    assert bars["samples"][15] == pytest.approx(float((drawn >= high - (high - low) / 16).double().mean()), abs=1e-4)
    shares = np.bincount(test[:, 2].long(), minlength=3) / len(test)
    assert sorted(shown["histograms"][2]["real"]) == pytest.approx(sorted(shares), abs=1e-4)


# Asking


def test_a_model_that_alters_given_cells_is_refused():
    for dataset in (image_dataset({"test": 8}), table_dataset({"test": 18})):
        x = dataset.split("test").all().x
        observed = torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) < 0.5
        drawn = inference.impute(KnownModel(dataset), x, observed, 0, draws=3)  # a gap may be filled with anything
        assert drawn.shape == (3, *x.shape)

        class Altering(KnownModel):
            def impute(self, x, observed, generator, *, draws=1):
                out = super().impute(x, observed, generator, draws=draws)
                place = tuple((observed & (x == x)).nonzero()[-1])
                out[(draws - 1, *place)] += 1
                return out

        with pytest.raises(ValueError, match="impute of Altering altered cells that were given"):
            inference.impute(Altering(dataset), x, observed, 0, draws=3)


def test_answers_of_another_length_or_without_a_number_are_refused():
    dataset = image_dataset({"test": 8})
    x = dataset.split("test").all().x

    class Short(KnownModel):
        def log_prob(self, x, generator):
            return super().log_prob(x, generator)[1:]

        def elbo(self, x, generator, *, samples=1):
            return super().elbo(x, generator, samples=samples).index_fill(0, torch.tensor([2]), torch.inf)

    with pytest.raises(ValueError, match="log_prob of Short gave 7 rows for 8"):
        inference.log_prob(Short(dataset), x, 0)
    with pytest.raises(ValueError, match="elbo of Short is not finite for 1 of 8 rows"):
        inference.elbo(Short(dataset), x, 0, 1)


def test_asking_leaves_the_model_in_the_mode_it_was_in():
    dataset = image_dataset({"test": 8})
    for training in (True, False):
        model = KnownModel(dataset).train(training)
        inference.log_prob(model, dataset.split("test").all().x, 0)
        assert model.training is training


# The number that training steers by


def test_the_validation_score_is_the_distance_to_the_validation_rows():
    dataset = image_dataset({"train": 700, "val": 90, "test": 60})
    for kept, split in ((80, "val"), (11, "train")):  # fewer than two rows a dimension are too few
        yardstick = made(dataset, {"train": 600, "val": kept, "test": 50}, 500)
        model, space = KnownModel(dataset), yardstick.spaces["classifier"]
        found = validation_score(model, space, n=650, seed=3)
        expected = points(dataset.split(split).all().x[yardstick.index[split]])
        assert found == pytest.approx(frechet_by_scipy(points(model.rows("sample")), expected), rel=1e-5), split
        counts = np.array(yardstick.facts["label_counts"])
        asked = np.bincount(torch.cat(model.told["sample"]), minlength=3)
        assert np.abs(asked - 650 * counts / counts.sum()).max() < 1
    other = KnownModel(dataset)
    assert validation_score(other, space, n=650, seed=4) != found
    assert other.noise["sample"] != model.noise["sample"]
    assert not torch.equal(other.told["sample"][0], model.told["sample"][0])
    test = points(dataset.split("test").all().x[yardstick.index["test"]])
    again = KnownModel(dataset)
    found = validation_score(again, space, "test", n=100, seed=3)
    assert found == pytest.approx(frechet_by_scipy(points(again.rows("sample")), test), rel=1e-5)
    with pytest.raises(ValueError, match="no rows of 'holdout'"):
        validation_score(model, space, "holdout")
