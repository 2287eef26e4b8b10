"""EncodedDataset: encoded rows on disk as contiguous, memory-mapped arrays.

One raw little-endian file per array and a manifest. Written in streams, complete only once the manifest is there.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mtl_rank.data.encoder import EncodedRows
from mtl_rank.errors import DataError
from mtl_rank.nn.layout import Layout

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class EncodedDataset:
    """Memory-mapped arrays of one split, row i of each being row i of the split."""

    rows: int
    arrays: EncodedRows

    @staticmethod
    def write(folder: Path, layout: Layout, n_tasks: int, parts: Iterable[EncodedRows]) -> "EncodedDataset":
        """Append `parts` to the arrays in `folder`, then publish the manifest."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MANIFEST).unlink(missing_ok=True)
        shapes = _shapes(layout, n_tasks)
        rows = 0
        files = {name: (folder / f"{name}.bin").open("wb") for name in shapes}
        try:
            for part in parts:
                for name, array in _named(part).items():
                    files[name].write(np.ascontiguousarray(array).data)
                rows += len(part.ids)
        finally:
            for file in files.values():
                file.close()
        manifest = {"rows": rows, "bytes": {name: (folder / f"{name}.bin").stat().st_size for name in shapes}}
        partial = folder / f"{MANIFEST}.partial"
        partial.write_text(json.dumps(manifest), encoding="utf-8")
        partial.replace(folder / MANIFEST)
        return EncodedDataset.open(folder, layout, n_tasks)

    @staticmethod
    def open(folder: Path, layout: Layout, n_tasks: int) -> "EncodedDataset":
        """Map the arrays of a written split. Raises DataError when the folder is incomplete or truncated."""
        try:
            manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise DataError(f"{folder}: no complete encoded split; prepare it again") from None
        rows = manifest["rows"]
        arrays = {}
        for name, (dtype, width) in _shapes(layout, n_tasks).items():
            path = folder / f"{name}.bin"
            expected = rows * width * dtype.itemsize
            if not path.exists() or path.stat().st_size != expected:
                raise DataError(f"{path}: truncated or of another layout; prepare the data again")
            arrays[name] = _map(path, dtype, (rows, width))
        return EncodedDataset(
            rows,
            EncodedRows(
                ids=arrays["ids"],
                dense=arrays["dense"],
                sequences=tuple(arrays[f"sequence_{i}"] for i in range(len(layout.sequences))),
                labels=arrays["labels"],
            ),
        )

    def slices(self, size: int) -> Iterator[EncodedRows]:
        """Consecutive parts of `size` rows, the last one shorter."""
        for start in range(0, self.rows, size):
            yield take(self.arrays, slice(start, start + size))


def take(arrays: EncodedRows, index: slice | npt.NDArray[np.int64]) -> EncodedRows:
    """The chosen rows of every array."""
    return EncodedRows(
        ids=arrays.ids[index],
        dense=arrays.dense[index],
        sequences=tuple(array[index] for array in arrays.sequences),
        labels=arrays.labels[index],
    )


def concat(parts: list[EncodedRows]) -> EncodedRows:
    """Parts one after another."""
    return EncodedRows(
        ids=np.concatenate([part.ids for part in parts]),
        dense=np.concatenate([part.dense for part in parts]),
        sequences=tuple(
            np.concatenate(arrays) for arrays in zip(*(part.sequences for part in parts), strict=True)
        ),
        labels=np.concatenate([part.labels for part in parts]),
    )


def _shapes(layout: Layout, n_tasks: int) -> dict[str, tuple[np.dtype[Any], int]]:
    sequences = {
        f"sequence_{i}": (np.dtype("<i4"), column.max_len) for i, column in enumerate(layout.sequences)
    }
    return {
        "ids": (np.dtype("<i4"), len(layout.ids)),
        "dense": (np.dtype("<f4"), len(layout.dense)),
        "labels": (np.dtype("<f4"), n_tasks),
        **sequences,
    }


def _named(part: EncodedRows) -> dict[str, npt.NDArray[Any]]:
    sequences = {f"sequence_{i}": array for i, array in enumerate(part.sequences)}
    return {"ids": part.ids, "dense": part.dense, "labels": part.labels, **sequences}


def _map(path: Path, dtype: np.dtype[Any], shape: tuple[int, int]) -> npt.NDArray[Any]:
    if 0 in shape:
        return np.empty(shape, dtype)
    return np.memmap(path, dtype, mode="r", shape=shape)
