"""Opening a DuckDB file that other processes write to.

DuckDB reads the header of a file, which says where everything in it is, before it takes the lock on the file (seen
with 2.0). Who opens a file while somebody else ends a commit may so see the file as it was before: an old state, or
blocks that are something else by now; and whatever it commits itself takes the place of the other's commit.
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import duckdb

T = TypeVar("T")

# One block for what the file is, two for its state: each checkpoint writes to one of these, with a number of its own.
_HEADER_BYTES = 3 * 4096

# A process that closes any descriptor of a file gives up all of its locks on it, those of other connections included.
# So descriptors are kept, of as many files as a process may use at a time.
_KEPT = 64
_descriptors: OrderedDict[Path, int] = OrderedDict()
_turn = threading.Lock()


def open_settled(file: Path, connect: Callable[[], T], close: Callable[[T], object]) -> T:
    """What `connect` returns, opened so that nobody committed between DuckDB's look at the header and its lock.

    close: undoes `connect` when somebody did; then it is called again.
    """
    while True:
        before = _header(file)
        try:
            opened = connect()
        except duckdb.Error:
            # Of what was read too early DuckDB may make any error.
            if _header(file) != before:
                continue
            raise
        # From here on the file is locked.
        if _header(file) == before:
            return opened
        close(opened)


def _header(file: Path) -> bytes:
    """The header of a file; nothing where it cannot be read, of which DuckDB then says why."""
    with _turn:
        try:
            return os.pread(_descriptor(file), _HEADER_BYTES, 0)
        except OSError:
            return b""


def _descriptor(file: Path) -> int:
    found = file.stat()
    descriptor = _descriptors.pop(file, None)
    if descriptor is not None and not os.path.samestat(os.fstat(descriptor), found):
        os.close(descriptor)
        descriptor = None
    if descriptor is None:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    _descriptors[file] = descriptor
    if len(_descriptors) > _KEPT:
        os.close(_descriptors.popitem(last=False)[1])
    return descriptor
