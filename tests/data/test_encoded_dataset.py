"""Encoded splits on disk: what was written is what is mapped, and what is incomplete is refused."""

import json

import numpy as np
import pytest
from encoder_tables import assert_same_rows, fitted, table_of
from hypothesis import given, settings
from hypothesis import strategies as st

from mtl_rank.data.encoded import EncodedDataset, concat, take
from mtl_rank.data.encoder import EncodedRows
from mtl_rank.errors import DataError
from mtl_rank.nn.layout import IdColumn, Layout, SequenceColumn

TASKS = 2


def layout_of(ids=2, dense=1, max_lens=(3,)):
    return Layout(
        dims=(4,),
        rows=(10,),
        ids=tuple(IdColumn(f"id{i}", 0, 0, 10) for i in range(ids)),
        sequences=tuple(
            SequenceColumn(f"s{i}", 0, 0, 10, max_len, None, ordered=True)
            for i, max_len in enumerate(max_lens)
        ),
        dense=tuple(f"d{i}" for i in range(dense)),
    )


def random_rows(layout, rows, seed=0, weighted=False):
    rng = np.random.default_rng(seed)
    labels = rng.normal(size=(rows, TASKS)).astype(np.float32)
    labels[rng.random(labels.shape) < 0.3] = np.nan
    return EncodedRows(
        ids=rng.integers(0, 2**31 - 1, (rows, len(layout.ids)), dtype=np.int32),
        dense=rng.normal(size=(rows, len(layout.dense))).astype(np.float32),
        sequences=tuple(
            rng.integers(0, 2**31 - 1, (rows, column.max_len), dtype=np.int32) for column in layout.sequences
        ),
        labels=labels,
        weights=rng.random(rows).astype(np.float32) if weighted else None,
    )


@given(
    st.integers(0, 3),
    st.integers(0, 2),
    st.lists(st.integers(1, 3), max_size=2),
    st.lists(st.integers(0, 9), max_size=4),
    st.integers(1, 7),
    st.booleans(),
)
@settings(max_examples=40)
def test_what_was_written_comes_back(tmp_path_factory, ids, dense, max_lens, parts, size, weighted):
    folder = tmp_path_factory.mktemp("split")
    layout = layout_of(ids, dense, tuple(max_lens))
    written = [random_rows(layout, rows, seed, weighted) for seed, rows in enumerate(parts)]
    nothing = random_rows(layout, 0, weighted=weighted)
    whole = concat([nothing, *written])
    for dataset in (
        EncodedDataset.write(folder, layout, TASKS, iter(written), weighted=weighted),
        EncodedDataset.open(folder, layout, TASKS, verify=True),
    ):
        assert dataset.rows == sum(parts)
        assert_same_rows(dataset.arrays, whole)
        slices = list(dataset.slices(size))
        assert [len(part.ids) for part in slices[:-1]] == [size] * (len(slices) - 1)
        assert_same_rows(concat([nothing, *slices]), whole)


def test_an_encoder_and_its_layout_fit_the_files(tmp_path):
    table = table_of(user=[1, 2, 3], price=[1.0, None, 2.0], seen=[[1], None, [2, 3]])
    encoder = fitted(
        table, user={}, price={"role": "dense"}, seen={"role": "bag", "shares": "user", "max_len": 2}
    )
    dataset = EncodedDataset.write(tmp_path, encoder.layout, 1, [encoder.encode(table)])
    assert_same_rows(dataset.arrays, encoder.encode(table))


@pytest.fixture
def split(tmp_path):
    EncodedDataset.write(tmp_path, layout_of(), TASKS, [random_rows(layout_of(), 5)])
    return tmp_path


@pytest.mark.parametrize("name", ["ids", "dense", "labels", "sequence_0"])
def test_a_truncated_grown_or_missing_file_is_refused(split, name):
    path = split / f"{name}.bin"
    content = path.read_bytes()
    for damaged in (content[:-1], content[:-4], b"", content + b"\0" * 4):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=f"{name}.bin: truncated"):
            EncodedDataset.open(split, layout_of(), TASKS)
    path.unlink()
    with pytest.raises(DataError, match=f"{name}.bin"):
        EncodedDataset.open(split, layout_of(), TASKS)


@pytest.mark.parametrize("name", ["ids", "dense", "labels", "sequence_0"])
def test_one_wrong_bit_is_found_by_verification(split, name):
    path = split / f"{name}.bin"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"{name}.bin: damaged"):
        EncodedDataset.open(split, layout_of(), TASKS, verify=True)


def test_another_layout_is_refused(split):
    for layout, tasks in ((layout_of(ids=3), TASKS), (layout_of(max_lens=(4,)), TASKS), (layout_of(), 3)):
        with pytest.raises(DataError, match="another layout"):
            EncodedDataset.open(split, layout, tasks)


def test_a_folder_without_a_whole_manifest_is_refused(split):
    manifest = split / "manifest.json"
    text = manifest.read_text()
    assert json.loads(text)["rows"] == 5
    manifest.write_text(text[:-1])
    with pytest.raises(DataError, match="no complete encoded split"):
        EncodedDataset.open(split, layout_of(), TASKS)
    manifest.unlink()
    with pytest.raises(DataError, match="no complete encoded split"):
        EncodedDataset.open(split, layout_of(), TASKS)


def test_writing_that_stops_half_way_leaves_no_complete_split(split):
    """Not even where an older split of the same size was there before."""

    def parts():
        yield random_rows(layout_of(), 5, seed=1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        EncodedDataset.write(split, layout_of(), TASKS, parts())
    with pytest.raises(DataError, match="no complete encoded split"):
        EncodedDataset.open(split, layout_of(), TASKS)


def test_rows_are_taken_together():
    layout = layout_of()
    rows = random_rows(layout, 9)
    index = np.array([3, 3, 0, 8])
    taken = take(rows, index)
    for i, source in enumerate(index):
        assert_same_rows(take(taken, slice(i, i + 1)), take(rows, slice(source, source + 1)))
