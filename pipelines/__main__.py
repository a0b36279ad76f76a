"""The command line: a command per stage of the pipeline, and those for people.

Every stage of `dvc.yaml` calls what a person can type. The commands stand in `pipelines/cli`, a file each.
"""

from __future__ import annotations

import errno
import io
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RESUMABLE = 75
"""Exit status of a training that was asked to stop and can go on (EX_TEMPFAIL)."""
PLACES = {
    errno.EISDIR: "is a folder where a file is expected: move it away, or give another name",
    errno.ENOTDIR: "leads through a file where a folder is expected: move it away, or give another name",
    errno.EEXIST: "is there already, and is not what is expected there: move it away, or give another name",
    errno.EIO: "cannot be read or written (an error of the disk or network drive): see that it is well, or copy it",
    errno.ENAMETOOLONG: "is too long a name: give a shorter one",
    errno.ELOOP: "is a link that leads back to itself: mend it",
    errno.ENOENT: "does not exist: mend the name, or run the stage that makes it (`dvc repro` runs them all)",
}
"""What is wrong with a place, and the fix, where the operating system tells only the former."""
INTERRUPTED = 130
"""Exit status after Ctrl-C."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    from pipelines.cli import app, logs, options
    from pipelines.cli.privacy import private_process

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names of files may hold what cannot be encoded
            stream.reconfigure(errors="backslashreplace")
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin while they wait slow a busy machine
    os.environ.setdefault("PYTHONWARNINGS", options.QUIET)
    noted: dict[str, Any] = {"verbose": False}
    try:
        with private_process(), logs.shown_log():
            status = app.group().main(arguments, prog_name="fivefold", standalone_mode=False, obj=noted)
    except Exception as error:
        return _answer(error, arguments, verbose=noted["verbose"])
    if status == INTERRUPTED:
        print("\nfivefold: interrupted; the same command goes on where it stopped", file=sys.stderr)
    return status if isinstance(status, int) else 0


def _answer(error: Exception, arguments: Sequence[str], *, verbose: bool) -> int:
    """Say what went wrong and how to mend it; the exit status."""
    from pipelines.cli.commands import command_name
    from pipelines.cli.tables import RED, styled

    name = styled(command_name(arguments), RED, sys.stderr)
    if hasattr(error, "format_message"):  # Typer's: a mistyped command
        print(_mistyped(error, command_name(arguments)), file=sys.stderr)
        return 2
    if type(error).__name__ == "Interrupted":
        print(f"{name}: {error}; the same command goes on", file=sys.stderr)
        return RESUMABLE
    if verbose:
        import traceback

        traceback.print_exception(error)
    from data.quoting import printable  # a message may quote what a stranger wrote

    print(f"{name}: {printable(_told(error))}", file=sys.stderr)
    return 1


def _mistyped(error: Any, name: str) -> str:
    """What of a command's words is wrong, with the nearest that is right."""
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        return error.format_message()
    name = context.command_path if context else name
    text = error.format_message().replace("Value error, ", "")
    if context and (option := getattr(error, "option_name", None)):
        from data.schema import closest

        options = [name for parameter in context.command.get_params(context) for name in parameter.opts]
        known = [name for name in options if name.startswith("-")]
        if option not in known:
            near = closest(option.lstrip("-"), [name.removeprefix("--") for name in known if name.startswith("--")])
            hint = f"; did you mean --{near}?" if near else f"; known: {', '.join(known)}"
            text = f"there is no option {option}{hint}"
    text = f"{text[0].lower()}{text[1:]}".rstrip(".")
    return f"{name}: {text}{'' if text.endswith('?') else '.'} See `{name} --help`."


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
    if isinstance(error, OSError) and error.filename and error.errno in PLACES:
        return f"{error.filename2 or error.filename} {PLACES[error.errno]}"
    if isinstance(error, RuntimeError) and "allocate memory" in str(error):
        asked = re.search(r"tried to allocate ([\d.,]+ ?\w*)", str(error), re.IGNORECASE)
        what = f": {asked[1]} were asked for" if asked else ""
        return f"not enough memory{what}. Ask for less: a smaller width, latent or batch_size, or fewer examples"
    if isinstance(error, ImportError):
        return f"{error}: what Fivefold needs is not installed whole. Run `make setup`, or `pip install -e .`"
    if isinstance(error, MemoryError):
        return (
            f"not enough memory{f' ({error})' if str(error) else ''}. Ask for less, or free some; see `fivefold doctor`"
        )
    if isinstance(error, (ValueError, OSError, RuntimeError)) and str(error).strip():
        return str(error)
    return (
        f"stopped by a {type(error).__name__} that should not happen ({' '.join(str(error).split())[:300]}). This is a"
        " fault of Fivefold: run the same command with -v and report what it prints"
    )


if __name__ == "__main__":
    sys.exit(main())
