"""CPU seconds from a finished retrieval to encoded rows: `python -m train.encoding FOLDER ROWS`."""

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pyarrow as pa

from mtl_rank.data.encoded import EncodedDataset
from mtl_rank.data.fitting import fit_encoder
from train.workload import TASKS, schema, sizes, tables


def main() -> None:
    folder, rows = Path(sys.argv[1]), int(sys.argv[2])
    retrieved = folder / f"retrieved-{rows}"
    if not retrieved.exists():
        _write(retrieved, tables(rows, sizes(1), seed=1))
    start = time.process_time()
    encoder = fit_encoder(_read(retrieved), schema(sizes(1)), TASKS, default_dim=16)
    fitted = time.process_time()
    with tempfile.TemporaryDirectory(dir=folder) as out:
        parts = (encoder.encode(table) for table in _read(retrieved))
        EncodedDataset.write(Path(out), encoder.layout, len(TASKS), parts)
    print(json.dumps({"fit": fitted - start, "encode": time.process_time() - fitted}))


def _write(path: Path, parts: Iterator[pl.DataFrame]) -> None:
    """The form in which a retrieval leaves its rows: a compressed Arrow file."""
    first = next(parts).to_arrow()
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with pa.ipc.new_file(path, first.schema, options=options) as file:
        file.write(first)
        for part in parts:
            file.write(part.to_arrow())


def _read(path: Path) -> Iterator[pl.DataFrame]:
    with pa.memory_map(str(path)) as source:
        reader = pa.ipc.open_file(source)
        for i in range(reader.num_record_batches):
            yield pl.DataFrame(pl.from_arrow(pa.Table.from_batches([reader.get_batch(i)])))


if __name__ == "__main__":
    main()
