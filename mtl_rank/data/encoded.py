"""EncodedDataset: encoded rows on disk as contiguous, memory-mapped arrays.

One raw little-endian file per array and a manifest. Written in streams, complete only once the manifest is there.
"""

import json
import mmap
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import numpy.typing as npt

from mtl_rank.data.encoder import EncodedRows
from mtl_rank.errors import DataError
from mtl_rank.nn.layout import Layout

MANIFEST = "manifest.json"
_PIECE_BYTES = 1 << 22


@dataclass(frozen=True)
class EncodedDataset:
    """Memory-mapped arrays of one split, row i of each being row i of the split."""

    rows: int
    arrays: EncodedRows
    _maps: tuple[mmap.mmap, ...] = ()

    @staticmethod
    def write(
        folder: Path, layout: Layout, n_tasks: int, parts: Iterable[EncodedRows], *, weighted: bool = False
    ) -> "EncodedDataset":
        """Append `parts` to the arrays in `folder`, then publish the manifest. weighted: the parts have weights."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MANIFEST).unlink(missing_ok=True)
        shapes = _shapes(layout, n_tasks, weighted)
        rows = 0
        checksums = dict.fromkeys(shapes, 0)
        with ExitStack() as stack:
            files = {name: stack.enter_context((folder / f"{name}.bin").open("wb")) for name in shapes}
            for part in parts:
                for name, array in _named(part).items():
                    content = np.ascontiguousarray(array).data
                    files[name].write(content)
                    checksums[name] = crc32(content, checksums[name])
                rows += len(part.ids)
        manifest = {"rows": rows, "weighted": weighted, "crc32": checksums}
        partial = folder / f"{MANIFEST}.partial"
        partial.write_text(json.dumps(manifest), encoding="utf-8")
        partial.replace(folder / MANIFEST)
        return EncodedDataset.open(folder, layout, n_tasks)

    @staticmethod
    def open(folder: Path, layout: Layout, n_tasks: int, *, verify: bool = False) -> "EncodedDataset":
        """Map the arrays of a written split. verify: read them once and compare their checksums.

        Raises DataError when the folder is incomplete, truncated or, as far as it was verified, damaged.
        """
        try:
            manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            rows, weighted, checksums = manifest["rows"], manifest["weighted"], manifest["crc32"]
        except (OSError, ValueError, KeyError):
            raise DataError(f"{folder}: no complete encoded split; prepare it again") from None
        arrays, maps = {}, []
        for name, (dtype, width) in _shapes(layout, n_tasks, weighted).items():
            path = folder / f"{name}.bin"
            expected = rows * width * dtype.itemsize
            if not path.exists() or path.stat().st_size != expected:
                raise DataError(f"{path}: truncated or of another layout; prepare the data again")
            if verify and _checksum(path) != checksums.get(name):
                raise DataError(f"{path}: damaged; prepare the data again")
            if expected:
                maps.append(_map(path))
                arrays[name] = np.frombuffer(maps[-1], dtype).reshape(rows, width)
            else:
                arrays[name] = np.empty((rows, width), dtype)
        return EncodedDataset(
            rows,
            EncodedRows(
                ids=arrays["ids"],
                dense=arrays["dense"],
                sequences=tuple(arrays[f"sequence_{i}"] for i in range(len(layout.sequences))),
                labels=arrays["labels"],
                weights=arrays["weights"][:, 0] if weighted else None,
                gaps=tuple(arrays[f"gaps_{i}"] for i in range(len(layout.timed))),
            ),
            tuple(maps),
        )

    def slices(self, size: int) -> Iterator[EncodedRows]:
        """Consecutive parts of `size` rows, the last one shorter."""
        for start in range(0, self.rows, size):
            yield take(self.arrays, slice(start, start + size))
            self.release()

    def release(self) -> None:
        """Give back the memory of what was read; reading it again maps it again.

        Without this, a process that has read a whole split holds all of it as its own, as far as anyone can see
        who limits its memory.
        """
        for mapped in self._maps:
            mapped.madvise(mmap.MADV_DONTNEED)


def take(arrays: EncodedRows, index: slice | npt.NDArray[np.int64]) -> EncodedRows:
    """The chosen rows of every array."""
    return EncodedRows(
        ids=arrays.ids[index],
        dense=arrays.dense[index],
        sequences=tuple(array[index] for array in arrays.sequences),
        labels=arrays.labels[index],
        weights=None if arrays.weights is None else arrays.weights[index],
        gaps=tuple(array[index] for array in arrays.gaps),
    )


def concat(parts: list[EncodedRows]) -> EncodedRows:
    """Parts one after another, all of them with weights or none."""
    weights = [part.weights for part in parts if part.weights is not None]
    return EncodedRows(
        ids=np.concatenate([part.ids for part in parts]),
        dense=np.concatenate([part.dense for part in parts]),
        sequences=tuple(
            np.concatenate(arrays) for arrays in zip(*(part.sequences for part in parts), strict=True)
        ),
        labels=np.concatenate([part.labels for part in parts]),
        weights=np.concatenate(weights) if weights else None,
        gaps=tuple(np.concatenate(arrays) for arrays in zip(*(part.gaps for part in parts), strict=True)),
    )


def _shapes(layout: Layout, n_tasks: int, weighted: bool) -> dict[str, tuple[np.dtype[Any], int]]:
    sequences = {
        f"sequence_{i}": (np.dtype("<i4"), column.max_len) for i, column in enumerate(layout.sequences)
    }
    return {
        "ids": (np.dtype("<i4"), len(layout.ids)),
        "dense": (np.dtype("<f4"), len(layout.dense)),
        "labels": (np.dtype("<f4"), n_tasks),
        **({"weights": (np.dtype("<f4"), 1)} if weighted else {}),
        **sequences,
        **{f"gaps_{i}": (np.dtype("<i4"), column.max_len) for i, column in enumerate(layout.timed)},
    }


def _named(part: EncodedRows) -> dict[str, npt.NDArray[Any]]:
    sequences = {f"sequence_{i}": array for i, array in enumerate(part.sequences)}
    gaps = {f"gaps_{i}": array for i, array in enumerate(part.gaps)}
    weights = {} if part.weights is None else {"weights": part.weights}
    return {"ids": part.ids, "dense": part.dense, "labels": part.labels, **weights, **sequences, **gaps}


def _checksum(path: Path) -> int:
    found = 0
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            found = crc32(piece, found)
    return found


def _map(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
