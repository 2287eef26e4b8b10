"""The application: its commands, the global option, and what becomes of errors."""

import errno
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer

from mtl_rank.errors import MtlRankError
from mtlrank_cli.commands import (
    cache,
    compare,
    evaluate,
    export,
    features,
    init,
    inspect,
    jobs,
    models,
    report,
    runs,
    score,
    simulate,
    train,
    tune,
)
from mtlrank_cli.startup import skip_rewriting_feast

INTERRUPTED, TERMINATED = 130, 143
_NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)

app = typer.Typer(
    name="mtlrank",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Multi-task ranking on a Feast feature store: train, evaluate and score.",
    epilog="Start with `mtlrank init shop`, then `mtlrank --project shop train --tasks ctr,cvr`.",
)


@app.callback()
def options(
    context: typer.Context,
    project: Annotated[
        Path | None,
        typer.Option(
            "--project", "-p", help="Folder with mtlrank.yaml. Default: this folder or a parent of it."
        ),
    ] = None,
) -> None:
    context.obj = project


for module in (
    *(init, simulate, features, models, train, tune, evaluate, report, compare, inspect),
    *(export, score, jobs, runs, cache),
):
    app.command(module.NAME, epilog=module.EXAMPLE)(module.command)


def main() -> None:
    """Exit 0: done. 2: something the user can mend, told in a line or two. 130, 143: stopped by Ctrl-C, by SIGTERM.
    1: a bug.
    """
    try:
        code = _run()
    except MtlRankError as error:
        _fail(str(error))
    except typer.TyperException as error:
        # Without any argument the help is printed and the error is empty.
        usage = error.format_message()
        if not usage:
            sys.exit(2)
        _fail(f"{usage}\n`mtlrank --help` and `mtlrank COMMAND --help` show what there is")
    except OSError as error:
        if error.errno not in _NOT_ALLOWED:
            raise
        _fail(f"{error.filename}: {error.strerror}")
    if code in (INTERRUPTED, TERMINATED):
        sys.stderr.write("mtlrank: stopped\n")
    sys.exit(code)


def _run() -> int:
    code: int
    if "--help" in sys.argv:
        code = app(standalone_mode=False)
        return code
    # Not at the top: help is there at once, without DuckDB.
    from mtl_rank.features.interrupts import interrupt_queries, interruptible

    skip_rewriting_feast()
    with _terminable() as terminated:
        try:
            with interrupt_queries(), interruptible():
                code = app(standalone_mode=False)
        except KeyboardInterrupt:
            code = INTERRUPTED
    # Typer has made this code of most KeyboardInterrupts.
    return TERMINATED if terminated and code == INTERRUPTED else code


@contextmanager
def _terminable() -> Iterator[list[int]]:
    """SIGTERM ends the work as Ctrl-C does: temporary files go, jobs are given up. Yields those that came."""
    came: list[int] = []

    def stop(number: int, _frame: FrameType | None) -> None:
        came.append(number)
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGTERM)
    if before is not signal.SIG_DFL:
        yield came
        return
    signal.signal(signal.SIGTERM, stop)
    try:
        yield came
    finally:
        signal.signal(signal.SIGTERM, before)


def _fail(message: str) -> NoReturn:
    sys.stderr.write(f"mtlrank: {message}\n")
    sys.exit(2)
