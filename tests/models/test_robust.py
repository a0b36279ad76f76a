"""Every family, with default settings and with those of params.yaml, on data nobody had in mind."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from test_tables import seeded, table

from models import FAMILIES, Batch, Streams, build, tasks
from pipelines import config as params

SETTINGS = params.load(Path(__file__).parents[2] / "params.yaml", dataset="digits").family
CONFIGS = {
    "defaults": lambda family: {},
    "params.yaml": lambda family: dataclasses.asdict(SETTINGS[family].model),
}


# Data


def images(height: int, width: int, channels: int, n: int = 24, *, flat: bool = False) -> tuple[dict, torch.Tensor]:
    domain = {"kind": "image", "channels": channels, "height": height, "width": width, "levels": 256}
    shape = (n, height, width, channels)
    if flat:  # one grey everywhere, but for a pixel of one image
        x = torch.full(shape, 127, dtype=torch.uint8)
        x[0, 0, 0] = 128
        return domain, x
    return domain, torch.randint(256, shape, generator=seeded()).to(torch.uint8)


IMAGES = {
    "8x8 grey": lambda: images(8, 8, 1),
    "12x20 grey": lambda: images(12, 20, 1),
    "28x28 grey": lambda: images(28, 28, 1),
    "30x30 colour": lambda: images(30, 30, 3),
    "32x32 colour": lambda: images(32, 32, 3),
    "64x64 colour": lambda: images(64, 64, 3),
    "64x48 colour": lambda: images(64, 48, 3),
    "25x25 grey": lambda: images(25, 25, 1),
    "62x47 grey": lambda: images(62, 47, 1),
    "13x17 colour": lambda: images(13, 17, 3),
    "5x3 grey": lambda: images(5, 3, 1),
    "nearly constant": lambda: images(8, 8, 1, flat=True),
    "all one grey": lambda: (images(8, 8, 1)[0], torch.zeros(24, 8, 8, 1, dtype=torch.uint8)),
    "nine images": lambda: images(16, 16, 1, n=9),
}


def rows(n: int, kinds: str, *columns: torch.Tensor) -> tuple[dict, torch.Tensor]:
    """A table: given columns, and standard normal or evenly drawn ones for the rest of `kinds`."""
    made = list(columns)
    for index, kind in enumerate(kinds[len(columns) :]):
        normal = torch.randn(n, generator=seeded(index), dtype=torch.float64)
        code = torch.randint(0, int(kind) if kind.isdigit() else 50, (n,), generator=seeded(index)).double()
        made.append(normal if kind == "c" else code)
    x = torch.stack([column.double() for column in made], dim=1)
    return table(x, kinds), x


def many_categories(n: int = 400) -> tuple[dict, torch.Tensor]:
    domain, x = rows(n, "cc")
    code = torch.randint(0, 300, (n,), generator=seeded(9)).double()
    column = {"name": "city", "type": "categorical", "categories": [f"c{i}" for i in range(300)]}
    column["frequencies"] = torch.bincount(code.long(), minlength=300).tolist()
    return {"kind": "table", "columns": [*domain["columns"], column]}, torch.cat([x, code[:, None]], dim=1)


def heavy(n: int = 300) -> tuple[dict, torch.Tensor]:
    """A log-normal column about a million with two outliers of 1e12, and a tame one with an outlier as far."""
    wild = (math.log(1e6) + 1.5 * torch.randn(n, generator=seeded(1), dtype=torch.float64)).exp()
    tame = torch.randn(n, generator=seeded(2), dtype=torch.float64)
    wild[:2], tame[2] = torch.tensor([1e12, 3e12], dtype=torch.float64), 1e12
    return rows(n, "ccc", wild, tame)


def gappy(part: float, n: int = 200) -> tuple[dict, torch.Tensor]:
    domain, x = rows(n, "cci3")
    x[torch.rand(n, generator=seeded(5)) < part, 1] = torch.nan
    x[:10] = torch.nan
    return domain, x


def never_known(n: int = 60) -> tuple[dict, torch.Tensor]:
    """A column of the card that holds nothing, as `prepare` describes it, and a category nobody has."""
    domain, x = rows(n, "cc")
    empty = {"min": 0.0, "max": 0.0, "mean": 0.0, "std": 1.0, "quantiles": [0.0] * 1001}
    nobody = {"name": "z", "type": "categorical", "categories": ["a", "b"], "frequencies": [0, 0]}
    columns = [*domain["columns"], {"name": "y", "type": "continuous", **empty}, nobody]
    return {"kind": "table", "columns": columns}, torch.cat([x, torch.full((n, 2), torch.nan)], dim=1)


TABLES = {
    "one number": lambda: rows(100, "c"),
    "one category": lambda: rows(100, "4"),
    "200 numbers": lambda: rows(150, "c" * 200),
    "a constant": lambda: rows(100, "cci", torch.full((100,), 3.5), torch.randn(100, generator=seeded())),
    "all whole numbers": lambda: rows(100, "iiii"),
    "zeros and ones": lambda: rows(100, "iic", *(torch.rand(2, 100, generator=seeded()) < 0.2)),
    "heavy tails": heavy,
    "300 categories": many_categories,
    "95 % missing": lambda: gappy(0.95),
    "25 rows": lambda: rows(25, "cci3"),
    "one row again and again": lambda: rows(50, "ci2", *torch.tensor([[1.5], [3.0], [1.0]]).expand(3, 50)),
    "never known": never_known,
    "large whole numbers": lambda: rows(80, "ic", 2.0**52 + torch.arange(80, dtype=torch.float64)),
    "tiny numbers": lambda: rows(80, "cc", 1e-300 * torch.randn(80, generator=seeded(), dtype=torch.float64)),
}


# What must hold


def assert_possible(found: torch.Tensor, domain: dict, n: int) -> None:
    """Finite, of the data's type, in its range; whole numbers whole and categories known."""
    assert len(found) == n
    if domain["kind"] == "image":
        assert found.dtype == torch.uint8
        assert tuple(found.shape[1:]) == (domain["height"], domain["width"], domain["channels"])
        return
    assert found.dtype == torch.float64
    assert torch.isfinite(found).all()
    for values, column in zip(found.T, domain["columns"], strict=True):
        categorical = column["type"] == "categorical"
        low, high = (0, len(column["categories"]) - 1) if categorical else (column["min"], column["max"])
        assert ((values >= low) & (values <= high)).all(), column["name"]
        assert column["type"] == "continuous" or torch.equal(values, values.round()), column["name"]


def survives(family: str, config: dict, domain: dict, x: torch.Tensor, classes: int) -> None:
    """Two steps of training, then everything the family can do."""
    torch.manual_seed(0)
    model = build({"family": family, "config": config, "domain": domain, "classes": classes})
    label = torch.randint(-1, classes, (len(x),), generator=seeded()) if classes else None
    batch = Batch(x, label)
    model.initialize(batch, Streams.seeded("initialize"))
    optimizers = [torch.optim.AdamW(objective.parameters(), 2e-3) for objective in model.objectives()]
    for step in range(2):
        part = torch.randperm(len(x), generator=seeded(step))[:16]
        small = Batch(x[part], None if label is None else label[part])
        for objective, optimizer in zip(model.objectives(), optimizers, strict=True):
            optimizer.zero_grad()
            loss = objective(small, Streams.seeded(step)).total.mean()
            assert torch.isfinite(loss), (step, objective.name)
            loss.backward()
            assert all(torch.isfinite(p.grad).all() for p in objective.parameters()), (step, objective.name)
            optimizer.step()
    model.eval().finalize(batch, Streams.seeded("finalize"))
    few, observed = x[:2], (torch.rand(x[:2].shape, generator=seeded(7)) < 0.5) & model.domain.observed(x[:2])
    noise, complete = Streams.seeded("use"), model.sample(3, None, Streams.seeded(0))
    assert_possible(complete, domain, 3)
    filled = model.impute(few, observed, noise, draws=2)
    assert torch.equal(filled[:, observed], few[observed].expand(2, -1))
    answers = {
        "reconstruct": lambda: model.reconstruct(few, noise),
        "decode": lambda: model.decode(model.encode(few)),
        "denoise": lambda: model.denoise(few, 1.0),
        "translate": lambda: model.translate(few, None if label is None else label[:2], 0.5, noise),
        "log_prob": lambda: model.log_prob(few, noise),
        "elbo": lambda: model.elbo(few, noise, samples=2),
        "anomaly_score": lambda: model.anomaly_score(torch.cat([few, complete.to(few.dtype)]), noise),
        "encode": lambda: model.encode(few),
    }
    for row in filled:
        assert_possible(row, domain, 2)
    for task in set(tasks(model)) & answers.keys():
        answer = answers[task]()
        assert torch.isfinite(answer).all(), task
        if task in ("reconstruct", "decode", "denoise", "translate"):
            assert_possible(answer, domain, 2)


QUICK = ["5x3 grey", "nearly constant", "heavy tails", "95 % missing", "one number", "never known"]


@pytest.mark.parametrize("family", list(FAMILIES))
@pytest.mark.parametrize("name", QUICK)
def test_every_family_survives(family, name):
    domain, x = (IMAGES | TABLES)[name]()
    survives(family, {}, domain, x, 3 if name in ("heavy tails", "5x3 grey") else 0)


@pytest.mark.slow
@pytest.mark.parametrize("family", list(FAMILIES))
@pytest.mark.parametrize("settings", list(CONFIGS))
@pytest.mark.parametrize("name", [*IMAGES, *TABLES])
@pytest.mark.parametrize("classes", [0, 30], ids=["no label", "30 labels"])
def test_every_family_survives_everything(family, settings, name, classes):
    domain, x = (IMAGES | TABLES)[name]()
    survives(family, CONFIGS[settings](family), domain, x, classes)


def test_an_outlier_does_not_make_all_other_values_one():
    """The resolution of a column follows its bulk: a value 1e12 away leaves standard normal ones apart."""
    domain, x = heavy()
    model = build({"family": "flow", "config": {}, "domain": domain, "classes": 0})
    tame = model.domain.to_model(x)[:, 1]
    assert len(tame.unique()) > 250
    bulk = x[:, 1] < 2
    back = model.domain.to_data(model.domain.to_model(x))
    assert torch.allclose(back[bulk, 1], x[bulk, 1], atol=1e-4)
