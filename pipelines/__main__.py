"""The command line: a command per stage of the pipeline, and those for people.

Every stage of `dvc.yaml` calls what a person can type. The commands stand in `pipelines/cli`, a file each.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RESUMABLE = 75
"""Exit status of a training that was asked to stop and can go on (EX_TEMPFAIL)."""
INTERRUPTED = 130
"""Exit status after Ctrl-C."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    from pipelines.cli import app, options

    arguments = list(sys.argv[1:] if arguments is None else arguments)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin while they wait slow a busy machine
    os.environ.setdefault("PYTHONWARNINGS", options.QUIET)
    noted: dict[str, Any] = {"verbose": False}
    try:
        status = app.group().main(arguments, prog_name="fivefold", standalone_mode=False, obj=noted)
    except Exception as error:
        return _answer(error, arguments, verbose=noted["verbose"])
    if status == INTERRUPTED:
        print("\nfivefold: interrupted; the same command goes on where it stopped", file=sys.stderr)
    return status if isinstance(status, int) else 0


def _answer(error: Exception, arguments: Sequence[str], *, verbose: bool) -> int:
    """Say what went wrong and how to mend it; the exit status."""
    context = getattr(error, "ctx", None)
    if context is not None:
        print(_mistyped(error, context), file=sys.stderr)
        return 2
    verb = next((word for word in arguments if not word.startswith("-")), "")
    name = f"fivefold {verb}".strip()
    if type(error).__name__ == "Interrupted":
        print(f"{name}: {error}; the same command goes on", file=sys.stderr)
        return RESUMABLE
    if verbose:
        traceback.print_exception(error)
    if not isinstance(error, (ValueError, OSError, RuntimeError)):
        raise error
    print(f"{name}: {_told(error)}", file=sys.stderr)
    return 1


def _mistyped(error: Any, context: Any) -> str:
    """What of a command's words is wrong, with the nearest that is right."""
    if not context.args and type(error).__name__ == "NoArgsIsHelpError":
        return error.format_message()
    text = error.format_message()
    if option := getattr(error, "option_name", None):
        from data.schema import nearest

        known = [name for parameter in context.command.get_params(context) for name in parameter.opts]
        if option not in known:
            text = f"there is no option {option}{nearest(option, known)}"
    text = f"{text[0].lower()}{text[1:]}".rstrip(".")
    return f"{context.command_path}: {text}{'' if text.endswith('?') else '.'} See `{context.command_path} --help`."


def _told(error: Exception) -> str:
    """What went wrong and the fix, where the operating system tells only the former."""
    if isinstance(error, OSError) and error.filename and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        folder = Path(str(error.filename)).absolute().parent
        return (
            f"no permission to use {error.filename}. Make {folder} writable for this user "
            f"(`chmod u+w {folder}`, or `chown`; if it is only read, `chmod u+rX {error.filename}`), or work in a copy "
            "of the project; nothing was changed"
        )
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"{error}: the disk is full. Free some space; the same command goes on where it stopped"
    if isinstance(error, OSError) and error.errno in (errno.EFBIG, errno.EDQUOT):
        return f"{error}: free some space, or raise the quota or the limit (`ulimit -f`); nothing partial is left"
    return str(error)


if __name__ == "__main__":
    sys.exit(main())
