"""The command line as its user meets it: help, completion, terminals, what it says, and what it answers to mistakes."""

from __future__ import annotations

import json
import os
import pty
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from pipelines.__main__ import main
from pipelines.cli.data import name_of
from pipelines.execution.events import Shown
from pipelines.training.progress import ProgressBar

pytestmark = [
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),  # MLflow's own
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning"),
]

ROOT = Path(__file__).parents[2]
FIVEFOLD = (sys.executable, "-m", "pipelines")
ROWS = "a,B,c\n" + "".join(f"{i * 37 % 101},{i * 2 % 13}.5,{'xy'[i % 2]}\n" for i in range(60))
Change = Callable[[Path], object]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with nothing prepared, trained or registered."""
    for name in ("data/catalog", "recipes"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "MLFLOW_TRACKING_URI")}
    return {**kept, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "TERM": "xterm", **more}


def on_terminal(*arguments: str, cwd: Path, **more: str) -> str:
    """What a command prints on a terminal."""
    leader, follower = pty.openpty()
    with subprocess.Popen(
        (*FIVEFOLD, *arguments), cwd=cwd, stdout=follower, stderr=follower, env=environment(**more)
    ) as process:
        os.close(follower)
        told = b""
        while True:
            try:
                piece = os.read(leader, 65536)
            except OSError:  # the other end is closed
                break
            if not piece:
                break
            told += piece
        process.wait()
    os.close(leader)
    return told.decode()


# Help, version, completion


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["data", "add", "--help"]])
def test_help_takes_a_tenth_of_a_second_of_processor_time(arguments):
    """The least of five runs: the first compiles what it imports, and other programs slow each of them."""
    spent, compiling = [], environment(PYTHONDONTWRITEBYTECODE="")
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run((*FIVEFOLD, *arguments), cwd=ROOT, env=compiling, capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(spent) < 0.1


def test_the_version_is_that_of_the_package(capsys):
    assert main(["--version"]) == 0
    stated = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1]
    assert capsys.readouterr().out == f"fivefold {stated}\n"


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("fivefold ev", {"evaluate"}),
        ("fivefold data ", {"add", "list", "show", "export", "update"}),
        ("fivefold train --family ", {"autoencoder", "vae", "gan", "flow", "diffusion"}),
        ("fivefold data show d", {"digits"}),
        ("fivefold data export digits --format ", {"parquet", "csv", "jsonl"}),
        ("fivefold train --data", {"--dataset"}),
    ],
)
def test_the_shell_completes_commands_options_and_names(typed, offered, project, monkeypatch, capsys):
    monkeypatch.setenv("_FIVEFOLD_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", typed)
    monkeypatch.setenv("COMP_CWORD", str(len(typed.split(" ")) - 1))
    with pytest.raises(SystemExit):
        main([])
    assert set(capsys.readouterr().out.split()) == offered


# Terminals and files


def test_colours_on_a_terminal_that_wants_them_only(project):
    told = on_terminal("data", "list", cwd=project)
    assert "\x1b[1m" in told
    assert "Optical recognition" in told
    assert "\x1b[" not in on_terminal("data", "list", cwd=project, NO_COLOR="1")
    assert "\x1b[1;31mfivefold data show" in on_terminal("data", "show", "nosuch", cwd=project)


def test_into_a_pipe_tables_are_plain_columns_and_json_is_json(project, capsys):
    assert main(["data", "list"]) == 0
    heading, digits = capsys.readouterr().out.splitlines()
    assert heading.split() == ["dataset", "kind", "prepared", "what"]
    assert digits.startswith("digits   image  no ")
    assert main(["prepare"]) == 0
    capsys.readouterr()
    assert main(["data", "list", "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert sum(entry["prepared"].values()) == 1797  # scikit-learn's digits
    assert main(["data", "show", "digits", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["prepared"], shown["card"]["image"]["levels"]) == (entry["prepared"], 17)


def test_a_log_that_is_no_terminal_has_times_and_says_what_was_written(project, capsys):
    assert main(["prepare"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \S", line) for line in lines)
    assert re.search(r"wrote data/prepared/digits: train 1,\d{3}, val \d+, test \d+ examples$", lines[-1])
    assert not re.search(r"\d\d:\d\d:\d\d", on_terminal("prepare", cwd=project))
    assert main(["pipeline"]) == 0
    assert "dvc.yaml has the stages of the one dataset that params.yaml names: nothing" in capsys.readouterr().out


def test_a_word_stands_where_a_bar_would_at_nothing(project, monkeypatch, capsys):
    """The bar begins with the first examples; before that the log says what is waited for."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with ProgressBar("vae", 1000) as bar:
        assert capsys.readouterr().err == ""
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        bar.show(250, {"vae/loss": 2.0})
    shown = capsys.readouterr().err
    assert " 25%" in shown
    assert " 0%" not in shown  # nor does a bar begin at nothing that goes on from a checkpoint
    evaluation = Shown("evaluate vae")
    evaluation.progress("samples", 5, 10)
    assert " 50%" in capsys.readouterr().err
    evaluation.progress("samples", 10, 10)
    assert capsys.readouterr().err.endswith(" \r")  # what is done leaves an empty line
    params = project / "params.yaml"
    params.write_text(params.read_text().replace("address: ", 'address: "127.0.0.1:1" '))
    assert main(["prepare"]) == 1
    words, error = capsys.readouterr().err.splitlines()
    assert words.endswith("joining the Ray cluster at 127.0.0.1:1 …")
    assert "no Ray cluster answers at 127.0.0.1:1" in error


def test_doctor_leaves_nothing_behind(project, tmp_path_factory, unused_port):
    """No file, no process, no socket; neither where all is well nor where a server is away."""
    temporary = tmp_path_factory.mktemp("temporary")
    before = sorted(project.rglob("*"))
    for more in ({}, {"RAY_ADDRESS": f"http://127.0.0.1:{unused_port}"}):
        with subprocess.Popen(
            (*FIVEFOLD, "doctor", "--json"),
            cwd=project,
            env=environment(TMPDIR=str(temporary), HOME=str(temporary), **more),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as doctor:
            found = json.loads(doctor.communicate()[0])
        assert ("fix" in {entry["mark"] for entry in found}) == bool(more)
        assert doctor.returncode == bool(more)
        (free,) = (int(told[1]) for entry in found if (told := re.match(r"(\d+) GB free", entry["text"])))
        assert free == pytest.approx(shutil.disk_usage(project).free / 1e9, abs=2)
        assert not [p for p in psutil.process_iter() if _session(p.pid) == doctor.pid]
    assert sorted(project.rglob("*")) == before
    assert not list(temporary.iterdir())


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return -1


# Models and samples


def test_models_lists_versions_and_who_holds_which_job(tiles, capsys):
    with tiles.entered() as root:
        capsys.readouterr()
        assert main(["models", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        record = json.loads((root / "runs/tiles/registry.json").read_text())
        assert {entry["model"] for entry in found} == {"tiles"}
        assert {entry["family"] for entry in found} == set(record["versions"])
        held = {(job, entry["version"], entry["family"]) for entry in found for job in entry["aliases"]}
        decided = record["jobs"].items()
        assert held == {(job, said["version"], said["family"]) for job, said in decided if said.get("version")}
        assert main(["models", "tiels"]) == 1
        assert "there is no registered model 'tiels'; did you mean tiles?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["Tiles"], "there is no registered model 'Tiles'; did you mean tiles?"),
        (["tiles@generaton"], "no version of tiles holds the job 'generaton'; did you mean generation?"),
        (["models:/tiles/99"], "tiles has no version 99; it has 1, 2"),
        (["tiles@"], "models:/tiles@ names no registered model"),
        (["nosuch://x"], "nosuch://x cannot be loaded"),
        (["tiles", "-o", "rows.csv"], "rows.csv does not fit: tiles draws images"),
        (["tiles", "--label", "purple"], "label must be"),
        (["tiles", "--seed", "-2"], "seed must be a whole number of at least -1"),
        (["tiles", "--given", "{bad"], "given must be a JSON object"),
        (["tiles", "-n", "99999999999999"], "Ask for less at a time"),
    ],
)
def test_what_cannot_be_drawn_is_said(arguments, told, tiles, capsys):
    with tiles.entered() as root:
        before = sorted(root.iterdir())
        capsys.readouterr()
        assert main(["sample", *arguments]) == 1
        error = capsys.readouterr().err
        assert told in error
        assert "Traceback" not in error
        assert sorted(root.iterdir()) == before


def test_sample_says_what_it_wrote_and_its_folder_holds_nothing_else(tiles, capsys):
    with tiles.entered() as root:
        capsys.readouterr()
        assert main(["sample", "tiles", "-n", "3", "-o", "drawn"]) == 0
        assert capsys.readouterr().out == "wrote drawn/: 3 images of tiles\n"
        assert sorted(path.name for path in (root / "drawn").iterdir()) == ["0.png", "1.png", "2.png"]
        assert main(["sample", "tiles", "-n", "1", "-o", "one.PNG"]) == 0
        assert (root / "one.PNG").read_bytes().startswith(b"\x89PNG")
        assert main(["sample", "tiles", "-o", "data"]) == 1
        assert "the folder data holds other things" in capsys.readouterr().err


# Mistakes


def written(name: str, content: str | bytes) -> Change:
    """A file of the project, as it is made before the command."""

    def change(root: Path) -> None:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    return change


def params(old: str, new: str) -> Change:
    """params.yaml with one thing in another's place."""

    def change(root: Path) -> None:
        path = root / "params.yaml"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    return change


def card(more: str, **source: str) -> Change:
    """The card of a table beside its file."""
    keys = {"path": "rows.csv", "format": "csv", **source}
    text = "".join(f"  {key}: {value}\n" for key, value in keys.items() if value)

    def change(root: Path) -> None:
        import hashlib

        (root / "rows.csv").write_text(ROWS)
        digest = hashlib.sha256(ROWS.encode()).hexdigest()
        stated = "" if "sha256" in source else f"  sha256: '{digest}'\n"
        (root / "data/catalog/t.yaml").write_text(f"name: t\nkind: table\nsource:\n{text}{stated}{more}")

    return change


def prepared(change: Change) -> Change:
    """Digits that were prepared before the change."""

    def both(root: Path) -> None:
        assert main(["prepare"]) == 0
        change(root)

    return both


def cut(pattern: str) -> Change:
    """Files of prepared data that end too early."""

    def change(root: Path) -> None:
        for path in (root / "data/prepared/digits").glob(pattern):
            path.write_bytes(path.read_bytes()[:-10])

    return change


NOTHING: Change = lambda root: None  # noqa: E731
TUNED = "runs/digits/tune/vae.json"
VARIED = '{"training.lr": 0.002, "model.free_bits": 0.05}'
TRIED = f'{{"settings": {{%s}}, "trials": [{{"as_written": true, "settings": {VARIED}}}]}}'
"""What a search left that tried these settings as they were written, and found others better."""
COLUMN = "columns: [{name: a, type: continuous}, {name: B, type: continuous}, {name: c, type: %s}]\n"

MISTYPED: list[tuple[str, str]] = [
    ("trian", "there is no command 'trian'; did you mean train?"),
    ("TRAIN", "there is no command 'TRAIN'; did you mean train?"),
    ("data lst", "there is no command 'lst'; did you mean list?"),
    ("train", "missing option '--family'"),
    ("train --famly vae", "there is no option --famly; did you mean --family?"),
    ("train --family", "option '--family' requires an argument"),
    ("train --family vae --verbose=maybe", "option '--verbose' does not take a value"),
    ("data show digits --rows 3", "there is no option --rows; known: --json"),
    ("prepare extra", "unexpected extra argument(s) (extra)"),
    ("sample digits -n 1e3", "'-n': must be a whole number, got '1e3'"),
    ("data export digits --to x --format xls", "'--format': 'xls' is not one of 'parquet', 'csv', 'jsonl'"),
]

SEARCHED = "vae: {search: {lr: {low: 1e-4, high: 1e-3}}}\n"
WRONG: list[tuple[str, Change, str]] = [
    # names
    ("train --family VAE", NOTHING, "VAE is not in families of params.yaml .*; did you mean vae?"),
    ("train --family transformer", NOTHING, r"families of params.yaml \(autoencoder, vae, gan, flow, diffusion\)"),
    ("prepare --dataset DIGITS", NOTHING, "there is no dataset 'DIGITS'.*Did you mean 'digits'.*data add"),
    ("report --dataset digit", NOTHING, "there is no dataset 'digit'.*Did you mean 'digits'"),
    ("train --family vae --dataset nosuch", NOTHING, "there is no dataset 'nosuch'.*Known datasets: digits"),
    ("prepare --dataset a/b", NOTHING, "name consists of letters.*got 'a/b'"),
    ("prepare --dataset ☕", NOTHING, "name consists of letters.*got '☕'"),
    ("data show " + "x" * 5000, NOTHING, r"at most 100, got 'x{100}'\. Rename it"),
    ("lineage", NOTHING, "no model is registered here yet. Run `dvc repro`"),
    ("lineage nonsense", NOTHING, "nonsense"),
    ("evaluate --family difusion", NOTHING, "difusion is not in families.*did you mean diffusion?"),
    ("models digits", NOTHING, "there is no registered model 'digits'; none is registered yet"),
    ("sample digits", NOTHING, "no model is registered here yet. Run `dvc repro`"),
    # places
    ("sample digits -o x.jpg", NOTHING, "x.jpg ends in .jpg, which is not written. Give a name that ends in .png"),
    ("sample digits -o params.yaml", NOTHING, "params.yaml is a file"),
    ("sample digits -o params.yaml/x.png", NOTHING, "params.yaml is a file, not a folder"),
    ("prepare", lambda root: os.replace(root / "params.yaml", root / "p"), "params.yaml does not exist; run from"),
    ("prepare", lambda root: ((root / "params.yaml").unlink(), (root / "params.yaml").mkdir()), "is a folder where a"),
    ("data add nothing.csv --name t", NOTHING, "there is nothing at nothing.csv"),
    ("data add /dev/null --name t", NOTHING, "/dev/null is neither a file nor a folder"),
    ("data add s3:// --name t", NOTHING, "must be s3://bucket/key"),
    ("data add ftp://x/y.zip --name t", NOTHING, "must start with https:// or s3://"),
    # params.yaml
    ("prepare", written("params.yaml", ""), "dataset: .*families: must be a list"),
    ("prepare", written("params.yaml", "- a\n"), r"params.yaml must be a mapping of keys to values.*got a list"),
    ("prepare", written("params.yaml", "a: [1\n"), r"params.yaml is not valid YAML: .*\(line 2, column 1\)"),
    ("prepare", written("params.yaml", "a: 1\n\tb: 2\n"), r"\(line 2, column 1\); indent with blanks"),
    ("prepare", written("params.yaml", b"\xff\xfe"), "params.yaml is not valid UTF-8"),
    ("prepare", written("params.yaml", "[" * 3000), "params.yaml is nested too deeply"),
    ("prepare", written("params.yaml", "a: !!python/name:os.system x\n"), "params.yaml is not valid YAML"),
    ("prepare", params("seed: 0", "seed: 0\nseed: 1"), r"params.yaml gives seed twice \(line \d"),
    ("prepare", params("seed: 0", "Seed: 0"), "Seed: unknown key; did you mean seed?"),
    ("prepare", params("seed: 0", "seed: 99999999999999999999"), "seed: must be a whole number from 0 to 4294967295"),
    ("prepare", params("beta: ,", "beta: .nan,"), "vae.model.beta: must be a number, got nan"),
    ("prepare", written("recipes/digits.yaml", "vae: {model: {latent: 1e30}}\n"), "latent: must be a whole number"),
    ("prepare", params("total_examples: ,", "total_examples: 80,000,"), "A comma begins the next key.*write 80000"),
    ("prepare", params("families: [autoencoder", "families: [[vae], VAE"), r"unknown family 'VAE'; did you mean vae?"),
    ("prepare", params("workers: ", "workers: [1, 1000000000]"), "1000000000 workers cannot share 8 virtual ranks"),
    ("prepare", written("recipes/digits.yaml", SEARCHED), "lr is not a setting; did you mean training.lr?"),
    ("prepare", params("address: ", 'address: "host:abc" '), "no Ray cluster answers at host:abc.*unset RAY_ADDRESS"),
    ("prepare", written("recipes/digits.yaml", "vea: {}\n"), "recipes/digits.yaml has 1 error.*did you mean vae?"),
    # cards
    ("prepare --dataset t", written("data/catalog/t.yaml", ""), "3 faults: name: is missing; kind.*source: is missing"),
    ("prepare --dataset t", card("title: x\ntitle: y\n"), "t.yaml gives title twice"),
    ("prepare --dataset t", card("labl: c\n"), "labl: unknown key; did you mean label"),
    ("prepare --dataset t", card("label: C\n"), r"missing 'C'.*did you mean 'c'\?"),
    ("prepare --dataset t", card("label: b\n"), r"missing 'b'.*did you mean 'B'\?"),
    ("features", params("  examples:", "  rows: 3\n  examples:"), "features.rows must be at least 20, got 3"),
    ("prepare --dataset t", card("columns: [a, b]\n"), r"columns\[0\]: must be a mapping with name, type"),
    ("prepare --dataset t", card(COLUMN % "continuos"), "type of column 'c' must be one of continuous"),
    ("prepare --dataset t", card(COLUMN % "continuous"), "row 2, column 'c': not a number"),
    ("prepare --dataset t", card("splits: {rows: {train: [0]}}\n"), r"splits.rows.train: must be \[a whole number"),
    ("prepare --dataset t", card("splits: {rows: {train: [0, 1000]}}\n"), "rows.csv has 60 rows. Fix the card"),
    ("prepare --dataset t", card("splits: {seed: -1}\n"), "splits.seed must be at least 0, got -1"),
    ("prepare --dataset t", card("max_categories: 0\n"), "max_categories must be at least 1"),
    ("prepare --dataset t", card("classes: [x]\n"), "label names no column"),
    ("prepare --dataset t", card("", format="CSV"), "source.format .*got 'CSV'; did you mean csv?"),
    ("prepare --dataset t", card("", delimiter="';'"), r"1 column \('a,B,c'\).*source.delimiter, which is ';'"),
    ("prepare --dataset t", card("", encoding="utf-16"), "rows.csv is not text in utf-16.*Fix source.encoding"),
    ("prepare --dataset t", card("", skip="900"), "nothing is left below the 900 lines that source.skip passes"),
    ("prepare --dataset t", card("", sha256="0" * 64), "64 hexadecimal digits .in quotes, or YAML reads a number"),
    ("prepare --dataset t", card("", path="nothing.csv"), "the source of dataset 't' is missing.*nothing.csv"),
    # what earlier stages left, or did not
    ("prepare", written("data/prepared/digits", "mine"), "digits is there already, and is not .*move it away"),
    ("evaluate --family vae", prepared(NOTHING), "no finished model in runs/digits/models/vae. Train it first"),
    ("register", NOTHING, "no finished model in runs/digits/models/autoencoder. Train it first"),
    ("train --family vae", NOTHING, "no prepared dataset.*Run `fivefold prepare --dataset digits`"),
    ("train --family vae", prepared(NOTHING), "tune/vae.json does not exist; run `fivefold tune --family vae` first"),
    ("train --family vae", prepared(written(TUNED, "")), "tune/vae.json is damaged.*Run `fivefold tune --family vae`"),
    ("train --family vae", prepared(written(TUNED, '{"settings": {"model.bta": 1}}')), "model.bta is not a.*beta"),
    ("settings", written(TUNED, ""), "tune/vae.json is damaged.*Run `fivefold tune --family vae`"),
    ("settings", written(TUNED, TRIED % '"model.bta": 1'), "tune/vae.json does not fit: model.bta is not a.*beta"),
    ("settings vae --write", NOTHING, "--write writes those of all families.*Leave FAMILY and --json out"),
    ("tune --family vae", prepared(cut("train*")), "train-00000.arrow is damaged: expected .* bytes.*Run `fivef"),
    ("data show digits", prepared(cut("manifest.json")), "manifest.json is missing or damaged.*Run `fivefold prepare"),
    ("data export digits --to params.yaml", prepared(NOTHING), "params.yaml is a file. Give the name of a folder"),
    ("models", written("mlflow.db", "no database"), "mlflow.db cannot be used: .*file is not a database"),
    # sources
    ("data add rows.csv --name t --size 8x8", card(""), "--size is for images, but rows.csv is csv"),
    ("data add rows.csv --name t --query x", card(""), "--query is for databases"),
    ("data add rows.csv --name t --sheet x", card(""), "--sheet is for workbooks"),
    ("data add rows.csv --name digits", card(""), "digits.yaml exists already. Choose another --name"),
    ("data add e.csv --name e", written("e.csv", ""), "e.csv is empty"),
    ("data add e.zip --name e", written("e.zip", "no zip"), "e.zip is not a zip archive"),
    ("data add e.jsonl --name e", written("e.jsonl", "{}\n" * 30), "no column can be learned from: it has none"),
]  # fmt: skip


@pytest.mark.parametrize(("typed", "told"), MISTYPED, ids=[typed for typed, _ in MISTYPED])
def test_a_mistyped_command_is_answered_by_what_is_right(typed, told, project, capsys):
    assert main(typed.split()) == 2
    error = capsys.readouterr().err
    assert told in error
    assert re.search(r"[.?] See `fivefold.* --help`\.\n$", error)
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("typed", "change", "told"), WRONG, ids=[f"{i}-{case[0][:40]}" for i, case in enumerate(WRONG)]
)
def test_what_is_wrong_is_named_with_its_fix(typed, change, told, project, capsys):
    """A sentence, no stack trace; nothing that was there is changed, and nothing made but the store of who asks it."""
    change(project)
    before = {path: path.read_bytes() for path in project.rglob("*") if path.is_file()}
    assert main(typed.split(" ")) == 1
    out, error = capsys.readouterr()
    assert re.search(told.replace("mean vae?", r"mean vae\?"), " ".join(error.split()))
    assert f"fivefold {typed.split()[0]}" in error
    assert "Traceback" not in error + out
    assert "should not happen" not in error
    assert {path: path.read_bytes() for path in before} == before
    made = {path for path in project.rglob("*") if path.is_file()} - before.keys()
    assert made <= ({project / "mlflow.db"} if typed.split()[0] in ("lineage", "models", "sample") else set())


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("sales 2024.csv", "sales-2024"),
        ("folder/rows.csv.gz", "rows"),
        ("https://host.org/a/photos.tar.gz?download=1", "photos"),
        ("s3://bucket/deep/table.parquet", "table"),
        ("folder/", "folder"),
        ("folder/deep/..", "folder"),
        (".hidden.csv", "hidden"),
        ("https://host.org/all%20rows.csv", "all-rows"),
        (f"{'x' * 150}.csv", "x" * 100),
    ],
)
def test_a_dataset_is_called_after_its_source_unless_told(source, name):
    assert name_of(source) == name


@pytest.mark.parametrize("source", ["s3://bucket", "https://host.org/?rows=3", "日本.csv"])
def test_a_source_that_suggests_no_name_asks_for_one(source):
    with pytest.raises(ValueError, match="--name"):
        name_of(source)


def test_a_card_is_named_after_its_source(project, capsys):
    (project / "my rows.csv").write_text("a,b\n" + "".join(f"{i},{i % 3}\n" for i in range(40)))
    assert main(["data", "add", "my rows.csv"]) == 0
    assert "data/catalog/my-rows.yaml" in capsys.readouterr().out
    assert main(["prepare", "--dataset", "my-rows"]) == 0


@pytest.mark.parametrize(("lr", "found"), [(0.002, {"source": TUNED, "value": 0.003}), (0.001, None)])
def test_settings_show_what_a_search_found_better_than_these(project, capsys, lr, found):
    """Not what it found better than others."""
    path = project / "params.yaml"
    ranges = "{training.lr: {low: 1e-3, high: 1e-2}, model.free_bits: {low: 0.0, high: 0.1}}"
    path.write_text(f"dataset: digits\nfamilies: [vae]\nvae: {{search: {ranges}}}\n")
    written("recipes/digits.yaml", f"vae: {{training: {{lr: {lr}}}}}\n")(project)
    written(TUNED, TRIED % '"training.lr": 0.003')(project)
    assert main(["settings", "vae", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)["vae.training.lr"]
    expected = found or {"source": "recipes/digits.yaml", "value": lr}
    assert {key: shown[key] for key in ("source", "value")} == expected
    assert (found is None) or shown["overrides"][0] == {"source": "recipes/digits.yaml", "value": lr}


def test_an_error_that_families_share_is_one_line(project, capsys):
    path = project / "params.yaml"
    path.write_text(path.read_text().replace("workers: ", "workers: 3 ").replace(" lr: ,", " lrr: 2e-3,"))
    assert main(["train", "--family", "vae"]) == 1
    heading, *lines = capsys.readouterr().err.splitlines()
    assert heading == "fivefold train: params.yaml has 2 errors:"
    assert lines[0] == (
        "  - autoencoder.training.lrr: unknown key; did you mean lr? (the same in vae, gan, flow, diffusion)"
    )
    assert lines[1].startswith("  - train.workers: autoencoder, vae, gan, flow, diffusion: 3 workers cannot share 8")
    assert len(lines) == 2


def test_what_should_not_happen_says_so_and_verbose_says_where(project, monkeypatch, capsys):
    monkeypatch.setattr("pipelines.config.load", lambda **_: {}["key"])
    assert main(["prepare"]) == 1
    error = capsys.readouterr().err
    assert "fivefold prepare: stopped by a KeyError" in error
    assert "Traceback" not in error
    assert main(["prepare", "-v"]) == 1
    assert "Traceback" in capsys.readouterr().err
