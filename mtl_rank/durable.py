"""Files that appear whole, and that a power failure does not take back."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

PARTIAL = ".partial"


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


def sync_folder(folder: Path) -> None:
    """Let the names in a folder reach the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
