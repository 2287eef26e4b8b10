"""Whole tables: one pass equals row by row, a saved encoder is the same encoder, damage is noticed."""

import json
from datetime import date
from random import Random

import polars as pl
import pytest
from encoder_tables import CLICK, assert_same_rows, fitted, schema_of, table_of
from hypothesis import given, settings
from hypothesis import strategies as st

from mtl_rank.config import Task
from mtl_rank.data.encoded import take
from mtl_rank.data.encoder import FeatureEncoder
from mtl_rank.data.fitting import fit_encoder
from mtl_rank.errors import DataError, RunError

INPUTS = {
    "user": {},
    "item": {"dim": 8},
    "city": {"max_size": 2, "dim": 8},
    "device": {"vocab": "hashed", "buckets": 7},
    "day": {"dim": 2},
    "price": {"role": "dense", "transform": "log1p", "bins": 4},
    "age": {"role": "dense", "transform": "quantile", "bins": 3, "dim": 2},
    "seen": {"role": "sequence", "shares": "item", "max_len": 3},
    "tags": {"role": "bag", "max_len": 2},
}
TASKS = CLICK | {"dwell": Task(label="seconds", kind="regression", transform="log1p", given="ctr")}
POOLS = {
    "user": (pl.Int64, [-(2**63), -5, 0, 2**53, 2**53 + 1, 2**63 - 1]),
    "item": (pl.Int32, [0, 1, 2, 3, 4]),
    "city": (pl.String, ["", "a", "\u00e9", "x" * 50]),
    "device": (pl.String, ["ios", "", "\u540d", "web", "tv"]),
    "day": (pl.Date, [date(2026, 1, day) for day in (1, 2, 3)]),
    "price": (pl.Float64, [-2.5, 0.0, 1e-9, 3.25, 1e6, float("nan")]),
    "age": (pl.Int64, [0, 1, 2, 5, 90]),
    "seen": (pl.List(pl.Int32), [[], [1], [None, 2], [4, 3, 2, 1, 0], [5, 5]]),
    "tags": (pl.List(pl.String), [[], ["t1"], ["t1", "t2", "t3"]]),
    "seconds": (pl.Float64, [0.0, 1.5, 600.0]),
}
SEEDS = st.integers(0, 2**32)


def random_table(seed, rows=8):
    random = Random(seed)
    columns = {
        name: pl.Series(random.choices([None, *pool], k=rows), dtype=dtype, strict=False)
        for name, (dtype, pool) in POOLS.items()
    }
    # One clicked row has a regression label.
    return table_of(**columns).with_columns(
        seconds=pl.when(pl.int_range(pl.len()) == 1).then(30.0).otherwise(pl.col("seconds"))
    )


def fit(table):
    return fit_encoder([table], schema_of(**INPUTS), TASKS, 4)


@given(SEEDS, SEEDS)
@settings(max_examples=30)
def test_one_pass_equals_row_by_row(training, serving):
    encoder, serving = fit(random_table(training)), random_table(serving)
    whole = encoder.encode(serving)
    for i in range(serving.height):
        assert_same_rows(encoder.encode(serving[i]), take(whole, slice(i, i + 1)))


@given(SEEDS, SEEDS)
@settings(max_examples=30)
def test_a_saved_encoder_is_the_same_encoder(tmp_path_factory, training, serving):
    folder = tmp_path_factory.mktemp("encoder")
    training, serving = random_table(training), random_table(serving)
    encoder = fit(training)
    encoder.save(folder)
    loaded = FeatureEncoder.load(folder)
    assert loaded.layout == encoder.layout
    assert loaded.schema == encoder.schema
    assert dict(loaded.tasks) == dict(encoder.tasks)
    assert loaded.targets == encoder.targets
    assert dict(loaded.scalers) == dict(encoder.scalers)
    for table in (training, serving, serving.head(0)):
        assert_same_rows(loaded.encode(table), encoder.encode(table))


def test_a_saved_encoder_keeps_columns_that_were_all_null(tmp_path):
    table = table_of(a=pl.Series([None, None]), b=pl.Series([None, None], dtype=pl.String))
    encoder = fitted(table, a={}, b={})
    encoder.save(tmp_path)
    loaded = FeatureEncoder.load(tmp_path)
    serving = pl.DataFrame({"a": [5, None], "b": ["x", None]})
    assert_same_rows(loaded.encode(serving, with_labels=False), encoder.encode(serving, with_labels=False))


def test_without_labels_a_table_needs_none():
    encoder = fitted(table_of(user=[1, 2]), user={})
    rows = encoder.encode(pl.DataFrame({"user": [2, 1]}), with_labels=False)
    assert rows.labels.shape == (2, 0)
    with pytest.raises(DataError, match="task ctr: the table has no label column 'clicked'"):
        encoder.encode(pl.DataFrame({"user": [2, 1]}))


def test_columns_that_the_model_does_not_read_are_no_matter():
    encoder = fitted(table_of(user=[1, 2]), user={})
    table = pl.DataFrame({"other": [object(), object()], "user": [2, 1]})
    assert_same_rows(
        encoder.encode(table, with_labels=False), encoder.encode(table[["user"]], with_labels=False)
    )


def test_a_missing_column_names_its_view_and_the_nearest_column():
    encoder = fitted(table_of(user=[1, 2]), user={})
    message = r"view\.user: the table has no column 'user'; did you mean 'users'\?"
    with pytest.raises(DataError, match=message):
        encoder.encode(pl.DataFrame({"users": [1]}), with_labels=False)
    with pytest.raises(DataError, match=message):
        fitted(table_of(users=[1, 2]), user={})


def test_no_training_rows_at_all():
    with pytest.raises(DataError, match="the training split has no rows"):
        fitted([], user={})
    with pytest.raises(DataError, match="the training split has no rows"):
        fitted(table_of(user=[1, 2]).head(0), user={})


@pytest.fixture
def saved(tmp_path):
    table = table_of(
        user=[1, 2, 3],
        device=["a", "b", "a"],
        price=[1.0, 2.5, None],
        seen=[[1], [2], None],
        seconds=[1.0, 2.0, 3.0],
    )
    names = ("user", "device", "price", "seen")
    inputs = {name: INPUTS[name] for name in names} | {"seen": {"role": "sequence", "shares": "user"}}
    fit_encoder([table], schema_of(**inputs), TASKS, 4).save(tmp_path)
    FeatureEncoder.load(tmp_path)
    return tmp_path


def assert_refused(folder):
    with pytest.raises(RunError, match=r"the encoder cannot be read|encoder format") as caught:
        FeatureEncoder.load(folder)
    assert str(folder) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_damaged_vocabularies_are_refused(saved):
    (vocabulary,) = saved.glob("*.parquet")
    content = vocabulary.read_bytes()
    for damaged in (content[:-1], content[: len(content) // 2], b"", content[:-9] + b"\1" + content[-8:]):
        vocabulary.write_bytes(damaged)
        assert_refused(saved)
    pl.DataFrame({"key": [1, 2, 4]}).write_parquet(vocabulary)
    assert_refused(saved)
    vocabulary.unlink()
    assert_refused(saved)


def test_a_truncated_or_missing_document_is_refused(saved):
    document = saved / "encoder.json"
    text = document.read_text()
    for damaged in (text[:-1], text[: len(text) // 2], "", "[]", "null", "{}"):
        document.write_text(damaged)
        assert_refused(saved)
    document.write_bytes(b"\xff\xfe" + text.encode())
    assert_refused(saved)
    document.unlink()
    assert_refused(saved)


def paths(node, path=()):
    """The path of every key and element of a JSON document."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in items:
        yield (*path, key)
        yield from paths(child, (*path, key))


OPTIONAL = {"options", "tasks"}  # what pydantic fills with defaults
DEFAULTED = {"at_scoring", "classes", "rates"}  # what every input or target has without it


def test_an_edited_document_is_refused(saved):
    """Every part that is removed, and every part that becomes something else altogether."""
    document = saved / "encoder.json"
    whole = json.loads(document.read_text())
    for path in paths(whole):
        *parents, last = path
        for edit in ("remove", "replace"):
            if edit == "remove" and (OPTIONAL & set(parents) or isinstance(last, int) or last in DEFAULTED):
                continue
            edited = json.loads(json.dumps(whole))
            node = edited
            for part in parents:
                node = node[part]
            if edit == "remove":
                del node[last]
            else:
                node[last] = {"surely": ["not", "this"]}
            document.write_text(json.dumps(edited))
            assert_refused(saved)
