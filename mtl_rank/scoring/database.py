"""A DuckDB file shared by many processes: created whole, opened for one transaction at a time, waited for."""

import os
import random
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

import duckdb

from mtl_rank.errors import ScoresError
from mtl_rank.features.duckdb_file import open_settled
from mtl_rank.features.interrupts import interruptible, watched

T = TypeVar("T")

# The file stays free at least this long between two commits of one writer, so that a reader that tries every
# few milliseconds gets in even where commits follow each other without a pause.
_BREATH = 0.02
_FIRST_PAUSE, _LONGEST_PAUSE = 0.005, 0.25
_FIRST_NOTICE = 1.0

_HELD = (
    "Could not set lock on file",
    "different configuration than existing connections",
    "file handle conflict",
)
_CONFLICT = ("Conflict on", "write-write conflict", "constraint violat")
# DuckDB adds its functions for Arrow to a database after it is open, and two threads that open one file share
# that database: the second could run before they are there. So the threads of this process take turns.
_TURN = threading.Lock()
_FOREIGN = ("not a valid DuckDB database file", "sqlite_scanner")


class Busy(Exception):
    """Someone else has the file. The message says in one line who."""


def _silent(_: str) -> None:
    return None


@dataclass(frozen=True)
class Patience:
    """How long to wait for others, in seconds, and whom to tell.

    file: for the database file while another process has it open. job: for the same job running elsewhere;
    0 = refuse at once. notify: called with one plain line now and then while waiting.
    """

    file: float = 300.0
    job: float = float("inf")
    notify: Callable[[str], None] = _silent

    def retry(
        self,
        attempt: Callable[[], T],
        on: type[Exception],
        limit: float,
        longest_pause: float = _LONGEST_PAUSE,
    ) -> T:
        """Call `attempt` until it no longer raises `on`, pausing longer and longer in between.

        Raises:
            ScoresError: it still did after `limit` seconds, with its message.
        """
        started, pause, notice = time.monotonic(), _FIRST_PAUSE, _FIRST_NOTICE
        while True:
            try:
                return attempt()
            except on as busy:
                waited = time.monotonic() - started
                if waited >= limit:
                    patience = f"; gave up after {waited:.0f} s" if limit > 0 else ""
                    raise ScoresError(f"{busy}{patience}") from None
                if waited >= notice:
                    self.notify(f"{busy}; waiting")
                    notice = 2 * waited
            # Uneven pauses: two waiting processes do not knock in step.
            time.sleep(min(pause * random.uniform(0.5, 1.0), max(0.0, limit - waited)))
            pause = min(2 * pause, longest_pause)


class Database:
    """One DuckDB file. Nothing is held open between calls, so readers and other writers get in."""

    def __init__(self, path: Path, patience: Patience) -> None:
        # DuckDB locks the file it is given: two names of one file must not become two locks.
        self.path = path.resolve()
        self.patience = patience
        self._closed_at = float("-inf")

    def create(self) -> None:
        """Make an empty database unless the file exists: it appears complete or not at all.

        Raises:
            ScoresError: the path is a folder or something else than a file, or its folder cannot be written.
        """
        if self.path.is_dir():
            example = self.path / "scores.duckdb"
            raise ScoresError(f"{self.path} is a folder: name a database file in it, such as {example}")
        if self.path.exists():
            if not self.path.is_file():
                raise ScoresError(f"{self.path} is not a file: choose another path")
            return
        if not self.path.parent.is_dir():
            raise ScoresError(f"the folder {self.path.parent} does not exist: create it first")
        # A process killed while DuckDB writes the header leaves a file DuckDB refuses, so that happens under
        # another name. A link, unlike a rename, never takes the place of a database made at the same moment.
        unfinished = self.path.with_name(f".{self.path.name}.{uuid4().hex}.new")
        try:
            duckdb.connect(str(unfinished)).close()
            os.link(unfinished, self.path)
        except FileExistsError:
            return
        except (duckdb.IOException, OSError) as error:
            raise ScoresError(f"cannot create {self.path}: {_reason(error)}") from None
        finally:
            unfinished.unlink(missing_ok=True)

    def transact(
        self,
        work: Callable[[duckdb.DuckDBPyConnection], T],
        *,
        read_only: bool = False,
        limit: float | None = None,
    ) -> T:
        """Open the file, run `work` in one transaction, commit, close. Waits while others hold the file.

        `work` runs again from the start when another connection of this process got in its way.

        Raises:
            ScoresError: the file stayed busy for `limit` (else `patience.file`) seconds, is no DuckDB database,
                cannot be written, the disk is full, or a value does not fit its column. Of `work` nothing was
                written then or, where only the last step of the commit failed, all.
        """
        wait = self.patience.file if limit is None else limit
        return self.patience.retry(lambda: self._once(work, read_only), Busy, wait)

    def _once(self, work: Callable[[duckdb.DuckDBPyConnection], T], read_only: bool) -> T:
        time.sleep(max(0.0, self._closed_at + _BREATH - time.monotonic()))
        with _TURN:
            return self._in_turn(work, read_only)

    def _in_turn(self, work: Callable[[duckdb.DuckDBPyConnection], T], read_only: bool) -> T:
        con = self._connect(read_only)
        try:
            with interruptible():
                con.begin()
                result = work(con)
                con.commit()
                return result
        except (duckdb.OperationalError, duckdb.DataError, duckdb.IntegrityError) as error:
            if _says(error, _CONFLICT):
                raise Busy(f"another connection is changing {self.path}") from error
            mended = isinstance(error, duckdb.OperationalError)
            hint = ".\nWhat was committed before is safe: run again once this is mended" if mended else ""
            raise ScoresError(f"{self.path}: {_reason(error)}{hint}") from error
        finally:
            con.close()
            self._closed_at = time.monotonic()

    def _connect(self, read_only: bool) -> duckdb.DuckDBPyConnection:
        try:
            con = open_settled(
                self.path,
                lambda: watched(duckdb.connect(str(self.path), read_only=read_only)),
                duckdb.DuckDBPyConnection.close,
            )
        except duckdb.Error as error:
            if _says(error, _HELD):
                process = re.search(r"\(PID (\d+)\)", str(error))
                who = f"process {process[1]}" if process else "another connection of this process"
                raise Busy(f"{self.path} is held open by {who}") from None
            if _says(error, _FOREIGN):
                raise self._foreign() from None
            raise ScoresError(f"cannot open {self.path}: {_reason(error)}") from None
        kind = "SELECT type FROM duckdb_databases() WHERE database_name = current_database()"
        if con.execute(kind).fetchall() != [("duckdb",)]:
            # An SQLite file, which DuckDB opens where it finds its extension for them.
            con.close()
            raise self._foreign()
        # A timestamp without a zone is UTC, as in Feast; DuckDB would take it for local time.
        con.execute("SET TimeZone = 'UTC'")
        return con

    def _foreign(self) -> ScoresError:
        return ScoresError(f"{self.path} is not a DuckDB database: choose another file")


def _says(error: Exception, signs: tuple[str, ...]) -> bool:
    # DuckDB has one exception for many causes. Its message quotes names, which may contain anything.
    text = re.sub(r'"[^"]*"', "", str(error))
    return any(sign in text for sign in signs)


def _reason(error: Exception) -> str:
    """The first line of an error, without DuckDB's name for its kind."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return re.sub(r"^[\w ]*Error: ", "", str(error).splitlines()[0])
