"""The command line itself: finds a command's function in its file, and answers what was mistyped."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from pipelines.cli.commands import COMMANDS, GROUPS, STAGES
from pipelines.cli.options import Verbose
from pipelines.cli.tables import BOLD, styled

if TYPE_CHECKING:
    from typer.core import TyperCommand

DESCRIPTION = """\
Five families of generative models, one contract, one pipeline, one yardstick.

The whole pipeline is `dvc repro` (or `make repro`); it calls the stages below in order and skips
what has not changed. Each can be called by hand; settings come from params.yaml."""

EPILOG = """\
\b
Examples:
  fivefold doctor                                what is installed and reachable, and what to fix
  fivefold prepare --dataset digits              read, check and write a dataset as shards
  fivefold train --family vae                    train, or go on where training was interrupted
  fivefold sample digits --label 3 -n 64 -o 3.png   draw from the best registered generator
  fivefold data add photos.zip --name photos     inspect a source and write its card
  dvc exp run -n wide -S vae.model.width=64      try a setting; registers nothing until `fivefold promote wide`

\b
Exit status: 0 done; 1 an error that the message says how to fix; 2 a mistyped command;
75 stopped by SIGTERM with its work kept, 130 interrupted: the same command goes on."""

SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class BoldHeadings(typer.Context.formatter_class):
    """Help with its headings in bold, where the terminal shows it."""

    def write_heading(self, heading: str) -> None:
        """Write the title of a section."""
        self.write(f"{styled(f'{heading}:', BOLD, sys.stdout)}\n")


class HelpContext(typer.Context):
    """The context of every command here."""

    formatter_class = BoldHeadings


class LazyGroup(TyperGroup):
    """Commands of a table; the file of each is imported when it is called.

    Its `words` are those in front of the commands: none, or `data`.
    """

    words: tuple[str, ...] = ()
    context_class = HelpContext

    @property
    def table(self) -> dict[str, str]:
        """What each command here does, in one line, in the order of `--help`."""
        prefix = "".join(f"{word} " for word in self.words)
        texts = {**STAGES, **COMMANDS} if self.words else {**STAGES, **_first_words(COMMANDS)}
        return {name.removeprefix(prefix): text for name, text in texts.items() if name.startswith(prefix)}

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        """Names of the commands."""
        return list(self.table)

    def get_command(self, ctx: typer.Context, cmd_name: str) -> Any:  # type: ignore[override]
        """The command of this name, its file imported; None if there is none."""
        if cmd_name not in self.table:
            return None
        if not self.words and cmd_name in GROUPS:
            return group((cmd_name,))
        return _command((*self.words, cmd_name), self.table[cmd_name])

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """What is in front of the command's name; where nothing is, no option is looked for."""
        if (
            args and args[0] in self.table
        ):  # Typer would import pydantic for their defaults: half the time help may take
            self.params, self.add_help_option = [], False
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: typer.Context, args: list[str]) -> Any:  # type: ignore[override]
        """The command that the arguments begin with.

        Raises:
            typer.BadParameter: If there is none of that name, with the nearest.
        """
        if args and not args[0].startswith("-") and args[0] not in self.table:
            from data.schema import nearest

            ctx.fail(f"there is no command {args[0]!r}{nearest(args[0], self.table)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: typer.Context, formatter: Any) -> None:  # type: ignore[override]
        """What the commands do, by the table alone."""
        wide = max(map(len, self.table))
        for title, names in (("Stages of the pipeline", STAGES), ("Commands", self.table)):
            rows = [(name.ljust(wide), self.table[name]) for name in names if name in self.table]
            rows = [row for row in rows if title != "Commands" or self.words or row[0].strip() not in STAGES]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows, col_max=wide + 2)


def _first_words(table: Mapping[str, str]) -> dict[str, str]:
    """Commands of one word as they are, of two words once by the first."""
    return {name.split()[0]: GROUPS.get(name.split()[0], text) for name, text in table.items()}


def _command(words: tuple[str, ...], text: str) -> TyperCommand:
    """The command of these words, from the function in its file."""
    name = "_".join(words).replace("-", "_")
    function = getattr(importlib.import_module(f"pipelines.cli.{name}"), name)
    one = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    one.command(words[-1], help=_told(function, text), short_help=text, context_settings=SETTINGS)(function)
    command: Any = typer.main.get_command(one)
    command.context_class = HelpContext
    if not any("--verbose" in parameter.opts for parameter in command.params):
        command.params.append(_verbose())
    return command


def _told(function: Any, text: str) -> str:
    """The function's docstring up to its first heading, or the line of the table."""
    doc = re.split(r"\n\n?(?:Arguments|Returns|Raises|References):", inspect.getdoc(function) or "")[0].strip()
    return doc or f"{text[0].upper()}{text[1:]}."


def _verbose() -> Any:
    """The option `--verbose`, for commands that do nothing else with it than show a traceback."""

    def takes(verbose: Verbose = False) -> None: ...

    one = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    one.command()(takes)
    option: Any = typer.main.get_command(one)
    (found,) = option.params
    found.expose_value = False
    return found


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"fivefold {version('fivefold')}")
        raise typer.Exit()


def group(words: tuple[str, ...] = ()) -> Any:
    """The command line, or the commands that begin with a word."""
    kind = type("Group", (LazyGroup,), {"words": words})
    text = DESCRIPTION if not words else f"{GROUPS[words[0]].capitalize()}."
    app = typer.Typer(add_completion=not words, rich_markup_mode=None, pretty_exceptions_enable=False)
    about: dict[str, Any] = {"cls": kind, "no_args_is_help": True, "context_settings": SETTINGS}
    if words:

        @app.callback(help=text, **about)
        def below() -> None: ...

    else:

        @app.callback(help=text, epilog=EPILOG, **about)
        def top(
            version: Annotated[
                bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
            ] = False,
            verbose: Verbose = False,
        ) -> None: ...

    made: Any = typer.main.get_command(app)
    made.name = words[-1] if words else "fivefold"
    return made
