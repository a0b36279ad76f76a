"""params.yaml: every mistake named at once, with its key and the fix."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from models import FAMILIES, build
from pipelines import config
from pipelines.defaults.layers import merged

WRITTEN = Path(__file__).parents[2] / "params.yaml"


def load(tmp_path: Path, user: str = "", recipe: str = "") -> config.Params:
    """The shipped file, with what a user has set in it and in the recipe of digits (YAML)."""
    tmp_path.mkdir(exist_ok=True)
    with (tmp_path / "params.yaml").open("w") as file:
        YAML().dump(merged(config.read_yaml(WRITTEN), YAML(typ="safe", pure=True).load(user) or {}), file)
    (tmp_path / "recipes").mkdir(exist_ok=True)
    (tmp_path / "recipes" / "digits.yaml").write_text(recipe or "{}\n")
    return config.load(tmp_path / "params.yaml")


def test_the_file_that_ships_is_valid(tmp_path):
    settings = load(tmp_path)
    assert settings.dataset == "digits"
    assert set(settings.family) == set(settings.families) == set(FAMILIES)


@pytest.mark.parametrize(
    ("user", "told"),
    [
        ("vae: {model: {bata: 1.0}}", r"vae\.model\.bata: unknown key; did you mean beta\?"),
        ("vae: {modle: {}}", r"vae\.modle: unknown key; did you mean model\?"),
        ("vae: 3", r"vae: must be a mapping with model, training, sampling, search, got 3"),
        ("sead: 0", r"sead: unknown key; did you mean seed\?"),
        ("seed: -1", r"seed: must be a whole number from 0 to 4294967295, got -1"),
        ("gan: {training: {lr: -2e-3}}", r"gan\.training: lr must be positive, got -0\.002"),
        ("gan: {training: {lr: .nan}}", r"gan\.training\.lr: must be a number, got nan"),
        ("gan: {training: {lr: true}}", r"gan\.training\.lr: must be a number, got True"),
        ("gan: {training: {accumulate: 3}}", r"accumulate must divide virtual_ranks \(8\), got 3"),
        ("gan: {training: {ema_half_life: -1}}", r"gan\.training: ema_half_life must not be negative, got -1"),
        ("train: {workers: many}", r"train\.workers: .*, got 'many'"),
        (
            "train: {workers: [1, 2, 4]}",
            r"train\.workers: must be .* \[a whole number, a whole number\] or auto, got",
        ),
        ("train: {workers: 0}", r"train: workers must be auto or at least 1, .*, got 0"),
        ("train: {workers: [4, 2]}", r"train: workers must be auto or at least 1, or \[min, max\] .*\(4, 2\)"),
        (
            "train: {workers: [1, 4]}",
            r"train\.workers: autoencoder, vae, gan, flow, diffusion: 3 workers cannot share 8 virtual ranks evenly;"
            r" use one of \[1, 2, 4, 8\], or one of the ranges \[\[1, 2\]\], or set virtual_ranks and batch_size to"
            r" multiples of 12",
        ),
        ("train: {storage: 'ftp://x'}", r"train: storage must be a folder or s3://bucket/prefix, got 'ftp://x'"),
        ("train: {on_divergence: hope}", r"train\.on_divergence: .* got 'hope'"),
        ("tune: {trials: 2.5}", r"tune\.trials: must be a whole number, got 2\.5"),
        ("tune: {trials: four}", r"tune\.trials: .* got 'four'"),
        ("tune: {part: 10.06}", r"tune: part must be above 0 and at most 1, got 10\.06"),
        ("cluster: {storage: shared}", r"cluster: storage must be an absolute path or s3://bucket/prefix, got shared"),
        ("families: [autoencoder, vaee]", r"families: unknown family 'vaee'; did you mean vae\?"),
        ("families: []", r"families: must be a list of at least"),
        ("families: [vae, vae]", r"families: a family is named twice"),
        ("dataset: ../x", r"dataset: must name a card in data/catalog/"),
        (f"dataset: {'x' * 101}", r"dataset: must name a card in data/catalog/ .*at most 100"),
        ("vae: {search: {training.lr: {low: 0, high: 1, log: true}}}", r"logarithmic range must be positive"),
        ("vae: {search: {training.lr: {low: 5e-3, high: 4e-3}}}", r"low must be below high"),
        (
            "vae: {search: {training.rl: {low: 5e-4, high: 4e-3}}}",
            r"vae\.search\.training\.rl: training\.rl is not a setting; did you mean training\.lr",
        ),
        ("vae: {search: {lr: {low: 5e-4, high: 4e-3}}}", r"vae\.search\.lr: lr is not a setting"),
        ("vae: {search: {training.lr: 3}}", r"vae\.search\.training\.lr: must be a mapping with low, high, log, got 3"),
        ("vae: {search: 3}", r"vae\.search: must be a mapping of settings to ranges, got 3"),
        (
            "diffusion: {model: {guidance: 2, width: 8}}",
            r"diffusion\.model\.guidance: how a model draws is no part of what is trained; "
            r"set diffusion\.sampling\.guidance instead",
        ),
        (
            "diffusion: {sampling: {guidence: 2}}",
            r"diffusion\.sampling\.guidence: unknown key; did you mean guidance\?",
        ),
        ("diffusion: {sampling: {steps: 1}}", r"diffusion\.sampling: steps must be at least 2, got 1"),
        (
            "diffusion: {search: {sampling.guidance: {low: 1, high: 3}}}",
            r"diffusion\.search\.sampling\.guidance: trials train, and no training depends on it",
        ),
        ("gun: {}", r"gun: unknown key; did you mean gan\?"),
    ],
)
def test_a_mistake_is_named(tmp_path, user, told):
    """Wherever it is made; that of a recipe with the recipe's name."""
    with pytest.raises(ValueError, match=told):
        load(tmp_path, user)
    if not user.startswith(("dataset", "families", "seed")):
        with pytest.raises(ValueError, match=f"recipes/digits.yaml has 1 error:\n  - .*{told}"):
            load(tmp_path / "again", recipe=user)


@pytest.mark.parametrize("key", ["dataset: adult", "families: [vae]", "seed: 1"])
def test_what_is_chosen_for_all_datasets_is_no_recipes(tmp_path, key):
    with pytest.raises(
        ValueError, match=f"recipes/digits.yaml has 1 error:\n  - {key.split(':')[0]}: belongs into params.yaml"
    ):
        load(tmp_path, recipe=key)


def test_workers_share_what_accumulation_leaves(tmp_path):
    assert load(tmp_path, "train: {workers: 8}").train.workers == 8
    with pytest.raises(ValueError, match=r"autoencoder: 8 workers cannot share 4 virtual ranks evenly"):
        load(tmp_path, "{train: {workers: 8}, autoencoder: {training: {accumulate: 2}}}")


def test_all_mistakes_are_told_at_once(tmp_path):
    with pytest.raises(ValueError, match="has 3 errors") as caught:
        load(tmp_path, "{vae: {model: {beta: -1}}, seed: x, tune: {trials: 0}}")
    assert all(key in str(caught.value) for key in ("vae.model", "seed", "tune"))


def test_a_family_may_be_left_out(tmp_path):
    assert load(tmp_path, "families: [vae, gan]").families == ("vae", "gan")


@pytest.mark.parametrize("text", ["a: [1,", "- 1\n- 2\n", "a: 1\na: 2\n"])
def test_what_is_not_a_yaml_mapping_is_refused_by_file(tmp_path, text):
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"params\.yaml"):
        config.load(tmp_path / "params.yaml")


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("data/catalog/digits.yaml", "image: [8, 8]"),
        ("data/catalog/digits.yaml", "- image"),
        ("data/prepared/digits/manifest.json", "[]"),
        ("data/prepared/digits/manifest.json", '{"domain": [], "splits": {}}'),
        ("runs/digits/settings.yaml", "measured:"),
        ("runs/digits/settings.yaml", "measured: {machine: [1], budgets: 3}"),
    ],
)
def test_a_faulty_file_of_the_data_is_told_by_who_needs_it(tmp_path, path, text):
    """Settings only look there for facts: a stage that reads the card or the shards says what is wrong with them."""
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text(text)
    assert load(tmp_path).dataset == "digits"


def test_settings_stay_those_of_the_machine_that_first_wrote_them(tmp_path):
    load(tmp_path)
    (tmp_path / "runs/digits").mkdir(parents=True)
    for cuda, bf16 in ((True, False), (False, True), (False, False)):
        written = f"measured: {{machine: {{cuda: {cuda}, bf16: {bf16}}}}}".lower()
        (tmp_path / "runs/digits/settings.yaml").write_text(written)
        facts = config.resolve(tmp_path / "params.yaml").facts
        assert (facts.cuda, facts.bf16) == (cuda, bf16)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="run from the project's root folder"):
        config.load(tmp_path / "params.yaml")


def test_searched_settings_are_checked_like_written_ones(tmp_path):
    family = load(tmp_path).family["vae"]
    assert config.with_settings(family, {"training.lr": 0.5, "model.latent": 8.2}).model.latent == 8
    with pytest.raises(ValueError, match="lr must be positive"):
        config.with_settings(family, {"training.lr": -1.0})
    changed = config.with_settings(family, {"training.augment.flip": True, "training.augment.shift": 0.1}).training
    assert (changed.augment.flip, changed.augment.shift) == (True, 0.1)
    with pytest.raises(
        ValueError, match=r"training\.augment\.flop is not a setting; did you mean training\.augment\.flip"
    ):
        config.with_settings(family, {"training.augment.flop": True})


def test_a_table_is_not_mirrored(tmp_path):
    (tmp_path / "data/catalog").mkdir(parents=True)
    (tmp_path / "data/catalog/digits.yaml").write_text("kind: table\n")
    user = "vae: {training: {augment: {shift: 0.1}}}"
    with pytest.raises(ValueError, match=r"vae\.training\.augment: a table cannot be mirrored or moved, images can"):
        load(tmp_path, user)
    with pytest.raises(ValueError, match=r"vae\.training\.augment: shift must be at least 0 and below 0\.5, got 0\.5"):
        load(tmp_path, user.replace("0.1", "0.5"))


@pytest.mark.parametrize("recipe", sorted((WRITTEN.parent / "recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_is_valid(recipe):
    assert config.load(WRITTEN, dataset=recipe.stem).dataset == recipe.stem


def test_the_recipe_of_rows_is_of_the_model_that_the_benchmark_tells_of():
    """docs/benchmarks.md: "couplings between the columns' own scales", 0.48 M parameters at 16 columns."""
    column = {"type": "continuous", "mean": 0.0, "std": 1.0, "min": -9.0, "max": 9.0, "missing": 0}
    domain = {"kind": "table", "columns": [{"name": f"c{i}", **column} for i in range(16)]}
    settings = config.load(WRITTEN, dataset="mnist-10k-rows").family["flow"]
    model = build({"family": "flow", "config": dataclasses.asdict(settings.model), "domain": domain, "classes": 10})
    page = (WRITTEN.parent / "docs/benchmarks.md").read_text(encoding="utf-8").split("couplings between the columns")[1]
    parameters = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    assert f", {parameters:.2f} M |" in page
