"""Files and folders that appear whole, and that a power failure does not take back."""

import ctypes
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

PARTIAL = ".partial"
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_CANNOT_EXCHANGE = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)


@contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """A name to write a file under; it becomes `path`, on the disk and not only in memory, when the block ends.

    Several writers of one path do not see each other: the file is that of the last one to end.
    """
    partial = path.with_name(f"{path.name}.{uuid4().hex}{PARTIAL}")
    try:
        yield partial
        # Otherwise the name may reach the disk before the content does.
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
        sync_folder(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def put_folder(new: Path, path: Path, away: Path) -> None:
    """Put the folder `new` in the place of `path`, which may not exist. The old folder is then called `new`.

    On Linux the two are exchanged in one step. Elsewhere, and on file systems that cannot, there is a moment without
    any folder, but never one with a mixture: the old one is then called `away`.
    """
    for folder in (new, *(child for child in new.rglob("*") if child.is_dir())):
        sync_folder(folder)
    if not path.exists():
        new.rename(path)
    elif not _exchange(new, path):
        path.rename(away)
        new.rename(path)
        away.rename(new)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Let the names in a folder reach the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two folders in one step; False where that is not possible."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    if rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _CANNOT_EXCHANGE:
        return False
    raise OSError(number, os.strerror(number), str(other))
