"""Ctrl-C during a query of DuckDB.

DuckDB asks Python for signals only where the thread that called it works itself: while its other threads have all of
the work, Ctrl-C is not seen before the query ends, which may be hours.
"""

import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from weakref import WeakSet

import duckdb

# How long the main thread has to react by itself: outside of a query it needs far less.
_REACTS_WITHIN = 0.1

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
    """Ctrl-C ends the queries of this process at once, whichever thread they are in.

    For a program, around all of its work, in the main thread. Where Ctrl-C is ignored, it stays ignored.
    """
    before = signal.getsignal(signal.SIGINT)
    if not callable(before):
        yield
        return
    heard, written = socket.socketpair()
    written.setblocking(False)
    reacted = threading.Event()

    def react(number: int, frame: FrameType | None) -> None:
        reacted.set()
        # DuckDB may have called this: it then waits for its other threads, which must be told.
        _interrupt()
        before(number, frame)

    def listen() -> None:
        # The descriptor is written by the signal itself, whatever the main thread is at.
        while numbers := heard.recv(64):
            if signal.SIGINT in numbers and signal.getsignal(signal.SIGINT) is react:
                while not reacted.wait(_REACTS_WITHIN):
                    _interrupt()
                reacted.clear()

    listener = threading.Thread(target=listen, name="ctrl-c", daemon=True)
    with heard, written:
        listener.start()
        signal.signal(signal.SIGINT, react)
        signal.set_wakeup_fd(written.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGINT, before)
            reacted.set()
            written.shutdown(socket.SHUT_WR)
            listener.join()


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
