"""Which rows of which table each column reads: no two owners share a row, sharers share all of theirs."""

from itertools import pairwise

import pytest
from encoder_tables import fitted, table_of
from hypothesis import given
from hypothesis import strategies as st

from mtl_rank.data.encoder import build_layout

KINDS = st.sampled_from(["categorical", "dense", "sequence", "bag"])
OPTIONS = st.fixed_dictionaries(
    {
        "role": KINDS,
        "dim": st.sampled_from([None, 2, 4, 8]),
        "bins": st.sampled_from([0, 2]),
        "vocab": st.sampled_from(["learned", "hashed"]),
        "buckets": st.integers(1, 5),
    }
)
VALUES = {
    "categorical": [1, 2, 3, None],
    "dense": [1.0, 2.0, 3.0, 4.0],
    "sequence": [[1], [2, 3], None, []],
    "bag": [["a"], ["b"], ["c"], None],
}


@st.composite
def schemas(draw):
    """Up to eight inputs, some of which share the embedding of an earlier one."""
    inputs = {}
    for i, options in enumerate(draw(st.lists(OPTIONS, min_size=1, max_size=8))):
        owners = [n for n, o in inputs.items() if o["role"] == options["role"] and "shares" not in o]
        if owners and options["role"] != "dense" and draw(st.booleans()):
            inputs[f"f{i}"] = {"role": options["role"], "shares": draw(st.sampled_from(owners))}
        else:
            inputs[f"f{i}"] = options
    return inputs


@given(schemas())
def test_ranges_tile_the_tables_and_sharers_share(inputs):
    table = table_of(**{name: VALUES[options["role"]] for name, options in inputs.items()})
    encoder = fitted(table, dim=4, **inputs)
    layout = encoder.layout
    columns = {column.name: column for column in (*layout.ids, *layout.sequences)}

    expected = {
        name if options["role"] != "dense" else f"{name}#bin"
        for name, options in inputs.items()
        if options["role"] != "dense" or options["bins"]
    }
    assert set(columns) == expected
    owned = {}
    for name, options in inputs.items():
        if options["role"] == "dense" and not options["bins"]:
            continue
        column = columns[name + "#bin" if options["role"] == "dense" else name]
        owner = options.get("shares", name)
        span = (column.table, column.offset, column.size)
        assert owned.setdefault(owner, span) == span
        assert layout.dims[column.table] == (inputs[owner].get("dim") or 4)
        if options["role"] == "categorical":
            words = inputs[owner]["buckets"] if inputs[owner]["vocab"] == "hashed" else 3
            assert column.size == 2 + words

    # Ranges of owners lie end to end, from the first row of each table to its last.
    for index, rows in enumerate(layout.rows):
        spans = sorted((offset, offset + size) for t, offset, size in owned.values() if t == index)
        assert spans[0][0] == 0
        assert spans[-1][1] == rows
        assert all(left[1] == right[0] for left, right in pairwise(spans))
    assert len(set(layout.dims)) == len(layout.dims)

    # The columns of one table are one slice.
    cut = [layout.ids[layout.columns_of(index)] for index in range(len(layout.dims))]
    assert tuple(column for part in cut for column in part) == layout.ids
    assert all(column.table == index for index, part in enumerate(cut) for column in part)

    for column in layout.sequences:
        if column.target is not None:
            assert layout.ids[column.target].offset == column.offset
            assert layout.ids[column.target].table == column.table
        assert column.ordered == (inputs[column.name]["role"] == "sequence")

    # Every encoded id lies in the range of its column.
    encoded = encoder.encode(table)
    for i, column in enumerate(layout.ids):
        assert (encoded.ids[:, i] >= column.offset).all()
        assert (encoded.ids[:, i] < column.offset + column.size).all()
    for ids, column in zip(encoded.sequences, layout.sequences, strict=True):
        assert (ids >= column.offset).all()
        assert (ids < column.offset + column.size).all()
    again = build_layout(encoder.schema, encoder.lookups, encoder.scalers, 4)
    assert again == layout


def test_a_history_points_at_the_id_column_it_shares():
    table = table_of(user=[1, 2], item=[3, 4], seen=[[3], [4]])
    encoder = fitted(table, user={"dim": 8}, item={}, seen={"role": "sequence", "shares": "item"})
    (column,) = encoder.layout.sequences
    assert encoder.layout.ids[column.target].name == "item"
    assert encoder.layout.dims == (4, 8)
    assert [c.name for c in encoder.layout.ids] == ["item", "user"]


@pytest.mark.parametrize(("with_missing", "dense"), [(False, ("a", "b")), (True, ("a", "b", "b#missing"))])
def test_indicators_follow_the_dense_values(with_missing, dense):
    table = table_of(a=[1.0, 2.0], b=[1.0, None if with_missing else 2.0])
    encoder = fitted(table, a={"role": "dense"}, b={"role": "dense"})
    assert encoder.layout.dense == dense
