"""params.yaml: every mistake named at once, with its key and the fix."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from models import FAMILIES, build
from pipelines import config

WRITTEN = Path(__file__).parents[2] / "params.yaml"


def load(tmp_path: Path, *changes: tuple[str, str], recipe: str = "") -> config.Params:
    text = WRITTEN.read_text()
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    (tmp_path / "params.yaml").write_text(text)
    if recipe:
        (tmp_path / "recipes").mkdir()
        (tmp_path / "recipes" / "digits.yaml").write_text(recipe)
    return config.load(tmp_path / "params.yaml")


def test_the_file_that_ships_is_valid(tmp_path):
    settings = load(tmp_path)
    assert settings.dataset == "digits"
    assert set(settings.family) == set(settings.families) == set(FAMILIES)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("beta: 0.5", "bata: 1.0", r"vae\.model\.bata: unknown key; did you mean beta\?"),
        ("seed: 0", "sead: 0", r"sead: unknown key; did you mean seed\?"),
        ("seed: 0", "seed: -1", r"seed: must be a whole number from 0 to 4294967295, got -1"),
        ("lr: 2e-3", "lr: -2e-3", r"autoencoder\.training: lr must be positive, got -0\.002"),
        ("lr: 2e-3", "lr: .nan", r"autoencoder\.training\.lr: must be a number, got nan"),
        ("workers: auto", "workers: many", r"train\.workers: .*, got 'many'"),
        (
            "workers: auto",
            "workers: [1, 2, 4]",
            r"train\.workers: must be .* \[a whole number, a whole number\] or auto, got",
        ),
        ("lr: 2e-3", "lr: true", r"autoencoder\.training\.lr: must be a number, got True"),
        ("trials: 3", "trials: 2.5", r"tune\.trials: must be a whole number, got 2\.5"),
        ("workers: auto", "storage: ftp://x", r"train: storage must be a folder or s3://bucket/prefix, got 'ftp://x'"),
        ("workers: auto", "on_divergence: hope", r"train\.on_divergence: .* got 'hope'"),
        ("lr: 2e-3", "accumulate: 3", r"autoencoder\.training: accumulate must divide virtual_ranks \(8\), got 3"),
        ("lr: 2e-3", "ema_half_life: -1", r"autoencoder\.training: ema_half_life must not be negative, got -1"),
        ("{low: 5e-4, high: 4e-3, log: true}", "{low: 0, high: 1, log: true}", r"logarithmic range must be positive"),
        ("part: ", "part: 1", r"tune: part must be above 0 and at most 1, got 1"),
        ("workers: auto", "workers: 0", r"train: workers must be auto or at least 1, .*, got 0"),
        ("workers: auto", "workers: [4, 2]", r"train: workers must be auto or at least 1, or \[min, max\] .*\(4, 2\)"),
        (
            "workers: auto",
            "workers: [1, 4]",
            r"train\.workers: autoencoder: 3 workers cannot share 8 virtual ranks evenly; use one of \[1, 2, 4, 8\], or"
            r" one of the ranges \[\[1, 2\]\], or set virtual_ranks and batch_size to multiples of 12",
        ),
        (
            'storage: ""',
            "storage: shared",
            r"cluster: storage must be an absolute path or s3://bucket/prefix, got shared",
        ),
        ("[autoencoder, vae", "[autoencoder, vaee", r"families: unknown family 'vaee'; did you mean vae\?"),
        ("families: [autoencoder, vae, gan, flow, diffusion]", "families: []", r"families: must be a list of at least"),
        ("families: [autoencoder, vae,", "families: [vae, vae,", r"families: a family is named twice"),
        ("dataset: digits", "dataset: ../x", r"dataset: must name a card in data/catalog/"),
        ("{low: 5e-4, high: 4e-3, log: true}", "{low: 5e-3, high: 4e-3}", r"low must be below high"),
        (
            "training.lr: {low: 3e-4",
            "training.rl: {low: 3e-4",
            r"training\.rl is not a setting; did you mean training\.lr",
        ),
        ("trials: 3", "trials: four", r"tune\.trials: .* got 'four'"),
        ("gan:\n", "gun:\n", r"gun: unknown key; did you mean gan\?"),
    ],
)
def test_a_mistake_is_named(tmp_path, old, new, told):
    with pytest.raises(ValueError, match=told):
        load(tmp_path, (old, new))


def test_workers_share_what_accumulation_leaves(tmp_path):
    eight = (("workers: auto", "workers: 8"),)
    assert load(tmp_path, *eight).train.workers == 8
    with pytest.raises(ValueError, match=r"autoencoder: 8 workers cannot share 4 virtual ranks evenly"):
        load(tmp_path, *eight, ("lr: 2e-3", "accumulate: 2"))


def test_all_mistakes_are_told_at_once(tmp_path):
    with pytest.raises(ValueError, match="has 3 errors") as caught:
        load(tmp_path, ("beta: 0.5", "beta: -1"), ("seed: 0", "seed: x"), ("trials: 3", "trials: 0"))
    assert all(key in str(caught.value) for key in ("vae.model", "seed", "tune"))


def test_a_family_may_be_left_out(tmp_path):
    settings = load(tmp_path, ("families: [autoencoder, vae,", "families: [vae,"))
    assert settings.families == ("vae", "gan", "flow", "diffusion")


def test_a_family_without_a_section_is_told(tmp_path):
    with pytest.raises(ValueError, match=r"gan: in families, but has no section"):
        load(tmp_path, ("\ngan:\n", "\nunused:\n"))


def test_the_recipe_of_the_dataset_overrides(tmp_path):
    settings = load(tmp_path, recipe="vae: {model: {latent: 7}}\n")
    assert settings.family["vae"].model.latent == 7
    assert settings.family["vae"].model.beta == 0.5


def test_numbers_in_scientific_notation_are_numbers(tmp_path):
    assert load(tmp_path, ("lr: 2e-3", "lr: 1e-4")).family["autoencoder"].training.lr == 1e-4


@pytest.mark.parametrize("text", ["a: [1,", "- 1\n- 2\n", "a: 1\na: 2\n"])
def test_what_is_not_a_yaml_mapping_is_refused_by_file(tmp_path, text):
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"params\.yaml"):
        config.load(tmp_path / "params.yaml")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="run from the project's root folder"):
        config.load(tmp_path / "params.yaml")


def test_searched_settings_are_checked_like_written_ones(tmp_path):
    family = load(tmp_path).family["vae"]
    assert config.with_settings(family, {"training.lr": 0.5, "model.latent": 8.2}).model.latent == 8
    with pytest.raises(ValueError, match="lr must be positive"):
        config.with_settings(family, {"training.lr": -1.0})


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
