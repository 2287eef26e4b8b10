"""Vectors from a parquet file: matched by key, refused where they do not fit."""

import numpy as np
import polars as pl
import pytest

from mtl_rank.config import InputOptions, Task
from mtl_rank.config.model import Pretrained
from mtl_rank.data.encoder import auto_dim, expected_layout
from mtl_rank.data.fitting import fit_encoder
from mtl_rank.data.pretrained import check_pretrained, read_pretrained
from mtl_rank.errors import ConfigError, DataError
from mtl_rank.features.schema import FeatureSchema, Input
from mtl_rank.progress import Silent

INPUTS = {
    "user": ("categorical", {"vocab": "hashed", "buckets": 10}),
    "item": ("categorical", {"min_count": 1, "dim": 3}),
    "seen": ("sequence", {"shares": "item"}),
    "tags": ("bag", {"min_count": 1}),
    "price": ("dense", {"bins": 3}),
}
SCHEMA = FeatureSchema(
    service="ranking",
    join_keys=(),
    request_columns=(),
    inputs=tuple(
        Input(name=name, origin=f"view.{name}", role=role, options=InputOptions(**options))
        for name, (role, options) in INPUTS.items()
    ),
)
TABLE = pl.DataFrame(
    {
        "user": [1, 2, 3, 4],
        "item": [10, 20, 30, 10],
        "seen": [[10], [], [20, 30], None],
        "tags": [["a"], ["b", "a"], [], ["c"]],
        "price": [1.0, 2.0, 3.0, 4.0],
        "y": [0, 1, 0, 1],
    }
)
KEYS = [40, 30, 10]
VALUES = np.array([[9.0, 9, 9], [3, 3, 4], [1, 1, 2]], np.float32)


def encoder_of(dim=2):
    return fit_encoder([TABLE], SCHEMA, {"ctr": Task(label="y")}, dim)


class Says(Silent):
    def __init__(self):
        self.lines = []

    def say(self, text):
        self.lines.append(text)


def read(tmp_path, frame, name="item", frozen=False, reporter=None):
    frame.write_parquet(tmp_path / "vectors.parquet")
    given = {name: Pretrained(path="vectors.parquet", frozen=frozen)}
    check_pretrained(given, tmp_path)
    return read_pretrained(given, tmp_path, encoder_of(), reporter or Says())


@pytest.mark.parametrize("dtype", [pl.List(pl.Float64), pl.Array(pl.Float32, 3)])
@pytest.mark.parametrize("keys", [KEYS, [float(key) for key in KEYS]])
def test_vectors_are_matched_by_key(tmp_path, dtype, keys):
    frame = pl.DataFrame({"vector": pl.Series(VALUES.tolist(), dtype=dtype), "id": keys})
    says = Says()
    (found,) = read(tmp_path, frame, frozen=True, reporter=says)
    encoder = encoder_of()
    column = next(c for c in encoder.layout.ids if c.name == "item")
    expected = dict(zip(KEYS, VALUES.tolist(), strict=True))
    local = encoder.encode(TABLE).ids[:, list(encoder.layout.ids).index(column)]
    stored = dict(zip(found.rows.tolist(), found.values.tolist(), strict=True))
    assert {row: stored.get(row) for row in local.tolist()} == {
        row: expected.get(item) for row, item in zip(local.tolist(), TABLE["item"], strict=True)
    }
    assert len(found.rows) == 2
    assert found.block == (column.offset, column.offset + column.size)
    assert (found.table, found.frozen) == (column.table, True)
    assert says.lines == ["item: vectors for 2 of 3 values"]


def test_vectors_of_texts_in_a_bag(tmp_path):
    (found,) = read(tmp_path, pl.DataFrame({"tag": ["c", "a"], "v": [[1.0, 2], [3, 4]]}), name="tags")
    assert sorted(found.values.tolist()) == [[1, 2], [3, 4]]


GOOD = pl.DataFrame({"id": KEYS, "vector": VALUES.tolist()})


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (
            GOOD.with_columns(id=pl.Series(["x", "y", "z"])),
            r"was integer when the encoder was fitted and is text",
        ),
        (GOOD.with_columns(id=pl.Series([7, 8, 9])), r"none of its 3 keys is a value of item in training"),
        (GOOD.with_columns(id=pl.Series([10, 10, 30])), r"column 'id' must hold every key once"),
        (
            GOOD.with_columns(id=pl.Series([10, None, 30])),
            r"column 'id' must hold every key once, none missing",
        ),
        (
            GOOD.with_columns(vector=pl.Series([[1.0, 2]] * 3)),
            r"the embedding is 3 wide, its vectors 2; set the input's dim",
        ),
        (GOOD.with_columns(vector=pl.Series([[1.0], [2.0, 3, 4], None])), r"3 wide, its vectors"),
        (GOOD.with_columns(vector=pl.Series([[1.0, 2, float("nan")]] * 3)), r"not a finite number"),
        (GOOD.with_columns(vector=pl.Series([["a", "b", "c"]] * 3)), r"not a finite number"),
        (
            GOOD.with_columns(more=pl.lit(1)),
            r"needs one column of keys and one of lists of numbers, it has id, vector, more",
        ),
        (GOOD.drop("vector"), r"needs one column of keys and one of lists"),
    ],
)
def test_files_that_do_not_fit_are_refused(tmp_path, frame, message):
    with pytest.raises(DataError, match=message) as caught:
        read(tmp_path, frame)
    assert "vectors.parquet" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("content", [None, b"no parquet"])
def test_a_file_that_cannot_be_read_is_refused_before_long_work(tmp_path, content):
    if content is not None:
        (tmp_path / "vectors.parquet").write_bytes(content)
    with pytest.raises(DataError, match=r"model\.pretrained\.item: .*vectors\.parquet cannot be read"):
        check_pretrained({"item": Pretrained(path="vectors.parquet")}, tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("seen", r"model\.pretrained\.seen: it shares the embedding of item; name that one"),
        ("price", r"model\.pretrained\.price: it is a number"),
        ("user", r"model\.pretrained\.user: its values are hashed and share rows"),
    ],
)
def test_inputs_that_cannot_have_vectors(tmp_path, name, message):
    with pytest.raises(ConfigError, match=message):
        read(tmp_path, GOOD, name=name)


def test_the_layout_is_known_by_names_before_any_row_is_read():
    expected, found = expected_layout(SCHEMA, 2), encoder_of().layout
    assert expected.dims == found.dims
    assert [(c.name, c.table) for c in expected.ids] == [(c.name, c.table) for c in found.ids]
    assert [(c.name, c.target, c.ordered) for c in expected.sequences] == [
        (c.name, c.target, c.ordered) for c in found.sequences
    ]
    assert expected.dense == found.dense


@pytest.mark.parametrize(
    ("rows", "dim"), [(2, 4), (30, 4), (300, 8), (5_000, 16), (100_000, 32), (10**8, 32)]
)
def test_widths_follow_the_number_of_values(rows, dim):
    assert auto_dim(rows) == dim


def test_a_layout_with_widths_by_rule():
    """Only where no width was given; the saved encoder has the same."""
    layout = encoder_of("auto").layout
    assert layout.dims == (3, 4)
    assert {c.name: layout.dims[c.table] for c in layout.ids} == {"user": 4, "item": 3, "price#bin": 4}


def test_the_rule_survives_saving(tmp_path):
    encoder = encoder_of("auto")
    encoder.save(tmp_path)
    assert type(encoder).load(tmp_path).layout == encoder.layout
