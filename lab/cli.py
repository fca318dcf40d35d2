# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line, and the only exit: errors become one line, a hint and an exit code here and nowhere else.

Commands live in lab/commands/; each imports what is heavy when it runs, so that a wrong name is told at once.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from functools import cache
from types import FrameType
from typing import Annotated, Any

import typer

from lab import log as logs
from lab.commands import debug, house, notify, run, show, stay
from lab.errors import Exit, LabError, refused

log = logging.getLogger(__name__)

app = typer.Typer(
    name="lab",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(run.app, name="run")
app.add_typer(show.lists, name="list")
app.command("report")(show.report)
app.command("compare")(notify.compare)
app.command("up")(stay.up)
app.command("ssh")(stay.ssh)
# Its command's options are not ours: all words from the first on are left alone.
app.command("exec", context_settings={"allow_interspersed_args": False})(stay.execute)
app.command("cp")(stay.copy)
app.command("console")(stay.console)
app.command("ps")(stay.ps)
app.command("down")(stay.down)
app.command("gdb")(debug.gdb)
app.command("dump")(debug.dump)
app.add_typer(house.image_app, name="image")
app.command("gc")(house.gc)
app.command("doctor")(house.doctor)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib import metadata

        print(f"lab {metadata.version('lab')}")
        raise typer.Exit


@app.callback()
def _lab(
    verbose: Annotated[int, typer.Option("--verbose", "-v", count=True, help="Say more; twice: everything.")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only errors and results.")] = False,
    _of_the_lab: Annotated[
        bool, typer.Option("--version", help="Print the lab's version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """A virtual-hardware test lab for changing code inside a running kernel.

    Example: lab run matrix --arch aarch64 --kernel trixie
    """
    logs.setup(-1 if quiet else verbose)


def main() -> None:
    """The console script."""
    _open_streams()
    sys.exit(call(sys.argv[1:]))


def call(argv: Sequence[str]) -> int:
    """Run one command line to its exit code; whatever goes wrong is told on stderr."""
    _catch_signals()
    try:
        return _invoke(argv)
    except LabError as e:
        return tell(e.message, e.hint, e.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return tell("interrupted", "", Exit.INTERRUPTED)
    except BrokenPipeError:
        logs.to_nobody(sys.stdout)
        return Exit.OK
    except ModuleNotFoundError as e:
        return tell(f"the Python package '{e.name}' is not installed", "run: make setup", Exit.INFRA)
    except Exception as e:
        if isinstance(e, OSError) and e.errno in (errno.ENOSPC, errno.EDQUOT):
            full = refused(e, where="somewhere")
            return tell(full.message, full.hint, full.exit_code)
        if callable(message := getattr(e, "format_message", None)):  # typer's own: a wrong option or argument
            return _usage(e, message())
        traceback.print_exc()
        return tell(f"internal error: {type(e).__name__}: {e}", "this is a bug of the lab", Exit.INFRA)


def tell(message: str, hint: str, code: int) -> int:
    """Print one line, its hint in parentheses, on stderr; return the exit code."""
    line, more = " ".join(message.split()), " ".join(hint.split())
    print(f"lab: {line} ({more})" if more else f"lab: {line}", file=sys.stderr)
    return int(code)


def _invoke(argv: Sequence[str]) -> int:
    """What typer's own main does, but for its ways with Ctrl-C and a closed stdout."""
    if "_LAB_COMPLETE" in os.environ:  # a shell asks for completions
        app(args=list(argv), prog_name="lab")
    command = _command()
    try:
        with command.make_context("lab", list(argv)) as context:
            value = command.invoke(context)
    except typer.Exit as e:
        value = e.exit_code
    sys.stdout.flush()
    return int(value) if isinstance(value, int) else Exit.OK


@cache
def _command() -> Any:
    return typer.main.get_command(app)


def _usage(error: Exception, message: str) -> int:
    if "\n" in message:  # no command was given: its help
        print(message, file=sys.stderr)
        return Exit.USAGE
    context = getattr(error, "ctx", None)
    path = getattr(context, "command_path", "lab")
    return tell(message or "a command is missing", f"try: {path} --help", Exit.USAGE)


def _open_streams() -> None:
    """Whoever starts us with a closed stdin, stdout or stderr means nothing by it."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            handle = os.open(os.devnull, os.O_RDWR)
            if handle != number:
                os.dup2(handle, number)
                os.close(handle)
            os.set_inheritable(number, True)
            setattr(sys, name, os.fdopen(number, "w" if number else "r"))


def _catch_signals() -> None:
    """Being told to end, and losing the terminal, are like Ctrl-C: finished cells are kept, guests ended."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup stays in force
            signal.signal(number, interrupt)
