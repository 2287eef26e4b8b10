"""Ctrl-C during a query of DuckDB.

DuckDB asks Python for signals only where the thread that called it works itself: while its other threads have all of
the work, Ctrl-C is not seen before the query ends, which may be hours.
"""

import signal
import socket
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from weakref import WeakSet

import duckdb

# How long the main thread has to answer by itself: outside of a query it needs far less.
_ANSWERS_WITHIN = 0.1
# What the handler writes behind the numbers of signals; no signal has it.
_ANSWER = b"\0"

_open: WeakSet[duckdb.DuckDBPyConnection] = WeakSet()
# A signal may come while the main thread holds it.
_adding = threading.RLock()


def watched(con: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
    """The same connection; its queries are among those that `interrupt_queries` speaks of."""
    with _adding:
        _open.add(con)
    return con


@contextmanager
def interrupt_queries() -> Iterator[None]:
    """Ctrl-C ends the queries of this process at once, whichever thread they are in; so does a SIGTERM that is handled.

    For a program, around all of its work, in the main thread. A signal that is ignored, or ends the process by itself,
    does so as before.
    """
    found = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    before = {number: handler for number, handler in found.items() if callable(handler)}
    if not before:
        yield
        return
    heard, written = socket.socketpair()
    written.setblocking(False)

    def react(number: int, frame: FrameType | None) -> None:
        with suppress(BlockingIOError):
            written.send(_ANSWER)
        # DuckDB may have called this: it then waits for its other threads, which must be told.
        _interrupt()
        before[signal.Signals(number)](number, frame)

    listener = threading.Thread(target=_listen, args=(heard, before, react), name="ctrl-c", daemon=True)
    with heard, written:
        listener.start()
        for number in before:
            signal.signal(number, react)
        others = signal.set_wakeup_fd(written.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(others)
            for number, handler in before.items():
                signal.signal(number, handler)
            written.shutdown(socket.SHUT_WR)
            listener.join()


def _listen(
    heard: socket.socket, signals: Collection[int], handler: Callable[[int, FrameType | None], None]
) -> None:
    """Interrupt queries until the handler answers; the signal itself writes its number, whatever Python is at."""
    unanswered = False
    while True:
        heard.settimeout(_ANSWERS_WITHIN if unanswered else None)
        try:
            numbers = heard.recv(64)
        except TimeoutError:
            _interrupt()
            continue
        if not numbers:
            return
        for number in numbers:
            if number in _ANSWER:
                unanswered = False
            elif number in signals:
                # A training has a handler of its own, and no query.
                unanswered = signal.getsignal(number) is handler


def _interrupt() -> None:
    with _adding:
        connections = list(_open)
    for con in connections:
        # It may be closed by now.
        with suppress(duckdb.Error):
            con.interrupt()


@contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C during a query is a KeyboardInterrupt, as it is anywhere else; DuckDB makes other errors of it."""
    try:
        yield
    except RuntimeError as error:
        if str(error) == "Query interrupted":
            raise KeyboardInterrupt from None
        raise
    except duckdb.InterruptException:
        raise KeyboardInterrupt from None
