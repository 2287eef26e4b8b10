"""What is done to folders of scores that are published, and locks of those who do so."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mtl_rank.durable import sync_folder


def put_back(path: Path, away: Path) -> None:
    """Undo a `put_folder` that was killed half-way. For whoever holds the lock under which it is called."""
    if path.exists():
        remove_tree(away)
    elif away.exists():
        away.rename(path)
        sync_folder(path.parent)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file, waiting for it; the kernel frees it when its holder dies."""
    file = try_lock(path, wait=True)
    try:
        yield
    finally:
        os.close(file)


def try_lock(path: Path, *, wait: bool = False) -> int:
    """Lock a file and return its descriptor; closing it, or dying, frees the lock.

    Raises BlockingIOError when it is held and `wait` is False.
    """
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BaseException:
            os.close(file)
            raise
        # Its last holder may have removed the file: then this lock is on nothing that others see.
        with suppress(FileNotFoundError):
            if os.fstat(file).st_ino == path.stat().st_ino:
                return file
        os.close(file)


def link_tree(old: Path, new: Path) -> None:
    """Give every file below `old` a second name at the same place below `new`."""
    for path in old.rglob("*"):
        if path.is_file():
            other = new / path.relative_to(old)
            other.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, other)


def remove_tree(path: Path) -> None:
    """Remove a folder, if it is there."""
    shutil.rmtree(path, ignore_errors=True)
