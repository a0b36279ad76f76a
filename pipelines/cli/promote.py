"""`fivefold promote`: the models of an experiment become registered versions."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Annotated

import typer


def promote(
    experiment: Annotated[
        str, typer.Argument(help="Its name in `dvc exp show` (default: what the workspace holds).")
    ] = "",
) -> None:
    """Register the models of an experiment, as `dvc repro` registers its own, and write the report again.

    `dvc exp run` trains, measures and reports, but registers nothing: no alias moves until this is called. Both stages
    are run by DVC, so that `dvc.lock` agrees with what is there.

    Arguments:
        experiment: Its name, as `dvc exp show` has it: it is brought into the workspace first (`dvc exp apply`);
            empty for what the workspace holds.
    Raises:
        ValueError: If there is no such experiment, or it cannot be brought into the workspace.
        RuntimeError: If a stage failed.
    """
    if experiment and _dvc("exp", "apply", experiment):
        raise ValueError(
            f"the experiment {experiment} cannot be brought into the workspace (DVC says why above); "
            "`dvc exp show` lists the experiments, `dvc commit` keeps results in the workspace that DVC does not know"
        )
    if _dvc("repro", "--single-item", "--force", "register", "report"):
        raise RuntimeError("nothing more is done; the stage that failed says above what to mend")


def _dvc(*arguments: str) -> int:
    """Run a command of DVC that is no part of an experiment, even if this process is; returns its status."""
    outside = {name: value for name, value in os.environ.items() if not name.startswith("DVC_EXP_")}
    return subprocess.run([sys.executable, "-m", "dvc", *arguments], env=outside, check=False).returncode
