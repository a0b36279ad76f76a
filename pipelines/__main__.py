"""The command line: a verb per stage of the pipeline, and a few for people.

Every stage of `dvc.yaml` calls what a person can type. Libraries are imported when a verb needs
them, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.cli.privacy import private_process

if TYPE_CHECKING:
    from pipelines.config import Params


RESUMABLE = 75
"""Exit status of a training that was asked to stop and can go on (EX_TEMPFAIL)."""

DESCRIPTION = """\
Five families of generative models, one contract, one pipeline, one yardstick.

The whole pipeline is `dvc repro` (or `make repro`); it calls the stages below in order and skips
what has not changed. Each can be called by hand; settings come from params.yaml."""

EPILOG = """\
examples:
  fivefold doctor                                what is installed and reachable, and what to fix
  fivefold prepare --dataset digits              read, check and write a dataset as shards
  fivefold train --family vae                    train, or go on where training was interrupted
  fivefold sample digits --label 3 -n 64 -o 3.png   draw from the best registered generator
  fivefold data add photos.zip --name photos     inspect a source and write its card

exit status: 0 done; 1 an error that the message says how to fix; 2 a mistyped command;
75 stopped by SIGTERM with its checkpoint written, 130 interrupted: the same command goes on"""


def parser() -> argparse.ArgumentParser:
    """All verbs and their options."""
    top = argparse.ArgumentParser(
        prog="fivefold", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("-v", "--verbose", action="store_true", help="say more: library logs, tracebacks")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="verb", title="verbs")

    def verb(name: str, text: str, *, dataset: bool = True, family: bool = False) -> argparse.ArgumentParser:
        added = verbs.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.", parents=[common])
        if dataset:
            added.add_argument("--dataset", metavar="NAME", help="a card in data/catalog/ (default: params.yaml's)")
        if family:
            added.add_argument("--family", required=True, metavar="FAMILY", help="one of params.yaml's families")
        return added

    verb("prepare", "read a dataset, check it and write it as shards")
    verb("features", "make the yardstick: frozen classifiers, floors and the classical baseline")
    verb("tune", "search a family's settings by short trials", family=True)
    verb("train", "train a family, or go on where training was interrupted", family=True)
    verb("evaluate", "measure a trained family by the yardstick", family=True)
    verb("register", "put every family's model into the registry and give each job to the best")
    verb("report", "write the report: one HTML page")
    _add_sample(verb("sample", "draw from a registered model into PNG, NPY, CSV or Parquet", dataset=False))
    lineage = verb("lineage", "check the chain from an alias back to the raw data")
    lineage.add_argument("alias", nargs="?", default="generation", help="a job (default: generation)")
    check = verb("verify", "check that a registered model is what was registered, before it is loaded", dataset=False)
    check.add_argument("model", help="a dataset's name (its best generator) or a URI such as models:/digits@density")
    check.add_argument("--to", default="", metavar="FOLDER", help="keep the files there, once they were compared")
    check.add_argument("--key", default="", metavar="PEM", help="public keys of which one must have signed the model")
    verb("doctor", "say what is installed and reachable, and what to fix", dataset=False)
    _add_data(verbs, common)
    return top


def _add_sample(sample: argparse.ArgumentParser) -> None:
    sample.add_argument("model", help="a dataset's name (its best generator) or a URI such as models:/digits@density")
    sample.add_argument(
        "-o", "--out", default="samples.png", metavar="PATH", help=".png, .npy or a folder of PNGs; .csv or .parquet"
    )
    sample.add_argument("-n", type=int, default=16, metavar="N", help="how many (default: 16)")
    sample.add_argument(
        "--label", default="-1", metavar="K", help="class of the draws, by name or number; -1 for any (default)"
    )
    sample.add_argument("--seed", type=int, default=0, help="the same seed draws the same; -1 draws anew (default: 0)")
    sample.add_argument(
        "--given", default="{}", metavar="JSON", help='of a table: columns and their values, {"city": "Oslo"}'
    )
    sample.add_argument(
        "--safe-csv", action="store_true", help="put ' before texts that a spreadsheet would run as formulas"
    )
    sample.add_argument("--steps", type=int, default=0, help="sampler steps; 0 for the model's own (default)")


def _add_data(verbs: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    data = verbs.add_parser("data", help="add a dataset, or show one")
    actions = data.add_subparsers(dest="action", required=True, metavar="action")
    add = actions.add_parser("add", help="inspect a source and write its card", parents=[common])
    add.add_argument(
        "source", help="path or URL of images or a table: archive, CSV, JSON lines, Parquet, Arrow, Excel, …"
    )
    add.add_argument("--name", required=True, help="name of the card")
    add.add_argument("--label", metavar="COLUMN", help="column of a table that holds the class")
    add.add_argument("--anomaly", metavar="COLUMN=VALUE", help="rows kept out of training to measure detection")
    add.add_argument("--size", metavar="WxH", help="width and height that images are brought to")
    add.add_argument("--fit", choices=("crop", "pad", "stretch"), help="how images of other sizes are brought to one")
    add.add_argument("--query", metavar="SQL", help="what is asked of a database (SQLite, DuckDB)")
    add.add_argument("--sheet", metavar="NAME", help="sheet of a workbook (default: the first that holds something)")
    export = actions.add_parser("export", help="write prepared data as files, one per split", parents=[common])
    export.add_argument("name", help="name of the dataset")
    export.add_argument("--to", required=True, type=Path, metavar="FOLDER", help="the folder to write")
    export.add_argument(
        "--format",
        default="parquet",
        choices=("parquet", "csv", "jsonl"),
        help="of the files; csv and jsonl of tables only, every cell as its source has it (default: parquet)",
    )
    show = actions.add_parser("show", help="print card, counts and a few examples", parents=[common])
    show.add_argument("name", help="name of the card")


def run(arguments: argparse.Namespace) -> None:
    """Do what the arguments ask for."""
    verbose = arguments.verbose
    match arguments.verb:
        case "data":
            _data(arguments)
        case "doctor":
            from pipelines.cli.doctor import doctor

            doctor()
        case "verify":
            from pipelines.cli.verify import verify

            verify(arguments.model, arguments.to, arguments.key)
        case "sample":
            from pipelines.cli.sample import sample

            sample(
                arguments.model,
                arguments.out,
                arguments.n,
                arguments.label,
                arguments.seed,
                arguments.steps,
                arguments.given,
                safe_csv=arguments.safe_csv,
            )
        case "train":
            from pipelines.stages.train import train

            train(arguments.family, dataset=arguments.dataset, verbose=verbose)
        case "tune":
            from pipelines.stages.tune import tune

            tune(arguments.family, dataset=arguments.dataset, verbose=verbose)
        case _:
            _stage(arguments)


def _stage(arguments: argparse.Namespace) -> None:
    from pipelines import config

    settings = config.load(dataset=arguments.dataset)
    dataset = settings.dataset
    match arguments.verb:
        case "prepare":
            _prepare(settings, verbose=arguments.verbose)
        case "features":
            from pipelines.stages.features import features

            features(dataset, seed=settings.seed, settings=settings.features)
        case "evaluate":
            _evaluate(settings, arguments.family)
        case "register":
            from pipelines.stages.register import register

            register(dataset, settings.families)
        case "report":
            from pipelines.stages.report import report

            report(dataset, settings.families)
        case "lineage":
            from pipelines.registry.lineage import verify

            verify(dataset, arguments.alias)


def _prepare(settings: Params, *, verbose: bool) -> None:
    """On a cluster that has been joined, else on this machine's cores: the source lies here, so no job is sent."""
    from pipelines.stages.prepare import prepare

    address = os.environ.get("RAY_ADDRESS") or settings.cluster.address
    if not address or address.startswith("http"):
        prepare(settings.dataset)
        return
    from pipelines import cluster

    with cluster.connected(address, verbose=verbose):
        prepare(settings.dataset, mapper=cluster.in_tasks)


def _evaluate(settings: Params, family: str) -> None:
    from pipelines import tracking
    from pipelines.execution.jobs import family_settings
    from pipelines.paths import runs_folder
    from pipelines.serving import artifact
    from pipelines.stages.evaluate import evaluate

    family_settings(settings, family)
    tracking.connect()
    chosen, folder = settings.evaluate, runs_folder(settings.dataset)
    measured = evaluate(
        settings.dataset, family, samples=chosen.samples, bootstrap=chosen.bootstrap, seed=settings.seed
    )
    facts, _ = artifact.read(folder / "models" / family)
    pictures = {path.stem: path for path in sorted((folder / "results" / family).iterdir())}
    tracking.log_evaluation(facts["run_id"], measured, pictures)


def _data(arguments: argparse.Namespace) -> None:
    from pipelines.cli.data import add, export, show

    match arguments.action:
        case "show":
            show(arguments.name)
        case "export":
            export(arguments.name, arguments.to, arguments.format)
        case _:
            keys = ("label", "anomaly", "size", "fit", "query", "sheet")
            add(arguments.source, arguments.name, **{key: getattr(arguments, key) or "" for key in keys})


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    chosen = parser().parse_args(arguments)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin while they wait slow a busy machine
    if not chosen.verbose:
        os.environ.setdefault("PYTHONWARNINGS", "ignore::FutureWarning,ignore::DeprecationWarning")
    try:
        with private_process():
            run(chosen)
    except KeyboardInterrupt:
        print("\nfivefold: interrupted; the same command goes on where it stopped", file=sys.stderr)
        return 130
    except (ValueError, OSError, RuntimeError) as error:
        if type(error).__name__ == "Interrupted":
            print(f"fivefold {chosen.verb}: {error}; the same command goes on", file=sys.stderr)
            return RESUMABLE
        if chosen.verbose:
            traceback.print_exc()
        from data.schema import printable  # a message may quote what a stranger wrote

        print(f"fivefold {chosen.verb}: {printable(_told(error))}", file=sys.stderr)
        return 1
    return 0


def _told(error: Exception) -> str:
    """What went wrong and the fix, where the operating system tells only the former."""
    from data.files import out_of_space

    if isinstance(error, OSError) and error.filename and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        folder = Path(str(error.filename)).absolute().parent
        return (
            f"no permission to use {error.filename}. Make {folder} writable for this user "
            f"(`chmod u+w {folder}`, or `chown`; if it is only read, `chmod u+rX {error.filename}`), or work in a copy "
            "of the project; nothing was changed"
        )
    if out_of_space(error):
        return f"{error}: the disk is full. Free some space; the same command goes on where it stopped"
    if isinstance(error, OSError) and error.errno in (errno.EFBIG, errno.EDQUOT):
        return f"{error}: free some space, or raise the quota or the limit (`ulimit -f`); nothing partial is left"
    return str(error)


if __name__ == "__main__":
    sys.exit(main())
