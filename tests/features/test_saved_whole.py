"""A saved dataset is the old one or the new one, never both and never half, whatever stops the writing."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from feast import FileSource

from mtl_rank.features.writes import save

SCHEMA = pa.schema([("i", pa.int64())])
PLACES = ["saved", "saved/train.parquet"]


def stream(*values: int | None) -> pa.RecordBatchReader:
    """A batch per value; None is a failure of the disk, say."""

    def batches() -> Iterator[pa.RecordBatch]:
        for value in values:
            if value is None:
                raise OSError("the source is gone")
            yield pa.record_batch([[value] * 10], SCHEMA)

    return pa.RecordBatchReader.from_batches(SCHEMA, batches())


def saved(base: Path, place: str) -> list[int]:
    return sorted(ds.dataset(base / place, format="parquet").to_table()["i"].to_pylist())


@pytest.mark.parametrize("place", PLACES)
def test_a_failure_leaves_what_was_and_nothing_else(tmp_path: Path, place: str) -> None:
    target = FileSource(path=place, timestamp_field="ts")
    with pytest.raises(OSError, match="the source is gone"):
        save(stream(1, 2, None), target, tmp_path, overwrite=False)
    save(stream(1), target, tmp_path, overwrite=False)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OSError, match="the source is gone"):
        save(stream(2, 3, None), target, tmp_path, overwrite=True)
    assert sorted(tmp_path.rglob("*")) == before
    assert saved(tmp_path, place) == [1] * 10
    save(stream(2, 3), target, tmp_path, overwrite=True)
    assert saved(tmp_path, place) == [2] * 10 + [3] * 10


KILLED = """
import os, signal, sys
from pathlib import Path
from feast import FileSource
sys.path.insert(0, sys.argv[3])
from test_saved_whole import stream
from mtl_rank.features.writes import save

lines = 0
def trace(frame, event, _):
    global lines
    functions = ("replace_folder", "_replace_local_folder", "put_folder", "_exchange")
    if frame.f_code.co_name not in functions:
        return None
    lines += event == "line"
    if lines == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    return trace

for step in range(1, 40):
    base = Path(sys.argv[1]) / str(step)
    save(stream(1), FileSource(path="saved", timestamp_field="ts"), base, overwrite=False)
    pid = os.fork()
    if pid == 0:
        sys.argv[2], lines = str(step), 0
        sys.settrace(trace)
        save(stream(2, 3), FileSource(path="saved", timestamp_field="ts"), base, overwrite=True)
        os._exit(0)
    if os.waitpid(pid, 0)[1] == 0:
        break
"""


def test_a_kill_leaves_the_old_rows_or_the_new_ones(tmp_path: Path) -> None:
    words = [sys.executable, "-c", KILLED, str(tmp_path), "0", str(Path(__file__).parent)]
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = [saved(step, "saved") for step in tmp_path.iterdir()]
    old, new = [1] * 10, [2] * 10 + [3] * 10
    assert 8 < len(found) < 39
    assert old in found
    assert new in found
    assert [rows for rows in found if rows not in (old, new)] == []
    for step in tmp_path.iterdir():
        save(stream(4), FileSource(path="saved", timestamp_field="ts"), step, overwrite=True)
        assert saved(step, "saved") == [4] * 10
