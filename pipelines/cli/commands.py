"""The table of commands: a line for each, and a file of its own that is imported when the command is called.

The command `data add` is the function `data_add` in `pipelines/cli/data_add.py`. Its signature says its arguments and
options (Typer's `Annotated`), its docstring what `fivefold data add --help` tells up to the first heading
(`Arguments:`). So that help and completion answer at once, the file imports what is heavy within the function.
"""

from __future__ import annotations

from collections.abc import Sequence

STAGES = {
    "prepare": "read a dataset, check it and write it as shards",
    "settings": "print every setting, where it comes from and what it goes before",
    "features": "make the yardstick: frozen classifiers, floors and the classical baseline",
    "tune": "search a family's settings by short trials",
    "train": "train a family, or go on where training was interrupted",
    "evaluate": "measure a trained family by the yardstick",
    "register": "put every family's model into the registry and give each job to the best",
    "report": "write the report: one HTML page",
}
"""What dvc.yaml calls, in its order."""

COMMANDS = {
    "pipeline": "write dvc.yaml for what params.yaml names: one dataset, or several side by side",
    "promote": "register the models of an experiment",
    "experiments": "print what each experiment changed, and what came of it",
    "models": "list the registered models and the jobs they hold",
    "sample": "draw from a registered model into PNG, NPY, CSV or Parquet",
    "pin": "give an alias to a version and keep it there, whatever register finds",
    "unpin": "let a pinned alias move again",
    "rollback": "give an alias back to the version that held it before",
    "migrate": "copy all that an MLflow store knows into another: runs, models, aliases",
    "verify": "check that a registered model is what was registered, before it is loaded",
    "lineage": "check the chain from an alias back to the raw data",
    "doctor": "say what is installed and reachable, and what to fix",
    "data add": "inspect a source and write its card",
    "data list": "list the cards and what is prepared of them",
    "data show": "print card, counts and a few examples",
    "data update": "accept a source that was edited: name what changed, and note it in the card",
    "data export": "write prepared data as files, one per split",
}
"""What people call."""

GROUPS = {"data": "add a dataset; list, show, update or export them"}
"""First words of commands of two words."""


def command_name(arguments: Sequence[str]) -> str:
    """The command that arguments ask for, as it is typed: `fivefold data add`."""
    words = [word for word in arguments if not word.startswith("-")][:2]
    return " ".join(["fivefold", *words[: 2 if words and words[0] in GROUPS else 1]])
