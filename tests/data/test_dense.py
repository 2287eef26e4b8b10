"""Dense inputs recomputed by NumPy: standardised values, indicators of missing ones, quantile bins."""

import tracemalloc

import numpy as np
import polars as pl
import pytest
from encoder_tables import fitted, table_of
from hypothesis import assume, given
from hypothesis import strategies as st

from mtl_rank.data.dense import DenseFitter
from mtl_rank.errors import DataError

NUMBERS = st.one_of(st.integers(-20, 20).map(float), st.floats(-1e6, 1e6))
COLUMNS = st.lists(st.one_of(st.none(), NUMBERS), min_size=2, max_size=60)


def encoded(training, serving=None, batches=1, **options):
    """(dense values, indicator or None, bin ids or None) of a column `x`."""
    training = pl.Series(training, dtype=pl.Float64)
    table = table_of(x=training)
    serving = table if serving is None else pl.DataFrame({"x": serving})
    encoder = fitted([table[i::batches] for i in range(batches)], x={"role": "dense"} | options)
    rows = encoder.encode(serving, with_labels=False)
    names = encoder.layout.dense
    return (
        rows.dense[:, 0],
        rows.dense[:, 1] if names == ("x", "x#missing") else None,
        rows.ids[:, 0] if encoder.layout.ids else None,
    )


def as_floats(values):
    return np.array([np.nan if value is None else value for value in values], np.float64)


TRANSFORMS = {
    "standard": lambda x: x,
    "log1p": lambda x: np.sign(x) * np.log(1 + np.abs(x)),
}


@given(COLUMNS, COLUMNS, st.sampled_from(sorted(TRANSFORMS)), st.integers(1, 3))
def test_values_are_standardised_by_the_training_rows(training, serving, transform, batches):
    known = TRANSFORMS[transform](as_floats(training))
    assume(not np.isnan(known).all())
    std = np.nanstd(known)
    assume(std > 1e-6 or len(set(training) - {None}) == 1)
    mean = np.nanmean(known)
    expected = (TRANSFORMS[transform](as_floats(serving)) - mean) / (std if std > 1e-6 else 1)
    found, indicator, _ = encoded(training, serving, batches, transform=transform)
    np.testing.assert_allclose(found, np.nan_to_num(expected), rtol=1e-5, atol=1e-4)
    if None in training:
        np.testing.assert_array_equal(indicator, np.isnan(expected))
    else:
        assert indicator is None


@given(COLUMNS)
def test_without_a_transform_values_stay_and_missing_is_zero(training):
    found, _, _ = encoded(training, transform="none")
    np.testing.assert_array_equal(found, np.nan_to_num(as_floats(training)).astype(np.float32))


@given(COLUMNS, COLUMNS, st.integers(1, 40))
def test_bins_are_cut_at_the_quantiles_of_the_training_rows(training, serving, bins):
    present = as_floats(training)
    present = present[~np.isnan(present)]
    assume(len(present))
    shares = [i / bins for i in range(1, bins)]
    borders = {np.quantile(present, share, method="inverted_cdf") for share in shares} - {present.min()}
    _, _, ids = encoded(training, serving, bins=bins)
    if not borders:
        assert ids is None
    else:
        expected = [0 if x is None else 2 + sum(x >= border for border in borders) for x in serving]
        assert ids.tolist() == expected


def test_bins_of_distinct_values_hold_equal_shares():
    values = np.random.default_rng(0).lognormal(size=10_000)
    _, _, ids = encoded(values, bins=8)
    counts = np.bincount(ids)
    assert counts[:2].tolist() == [0, 0]
    assert counts[2:] == pytest.approx([1250] * 8, abs=1)


def test_the_quantile_transform_is_the_share_of_smaller_training_values():
    rng = np.random.default_rng(1)
    training, serving = rng.lognormal(size=5001), rng.lognormal(size=500)
    found, _, _ = encoded(training, serving, transform="quantile")
    shares = np.searchsorted(np.sort(training), serving) / 5000
    assert found == pytest.approx((shares - 0.5) * np.sqrt(12), abs=0.02)
    edges, _, _ = encoded(training, np.array([-1e9, 1e9]), transform="quantile")
    assert edges == pytest.approx([-np.sqrt(3), np.sqrt(3)], abs=1e-3)


@given(st.lists(st.sampled_from([0.0, 0.0, 1.0, 2.0, 50.0]), min_size=2, max_size=50))
def test_a_quantile_transform_has_mean_0_and_deviation_1_even_with_ties(training):
    found, _, _ = encoded(training, transform="quantile", bins=0)
    assert np.isfinite(found).all()
    assert found.mean(dtype=np.float64) == pytest.approx(0, abs=1e-5)
    assert found.std(dtype=np.float64) == pytest.approx(float(len(set(training)) > 1), abs=1e-5)


def test_missing_values_that_training_did_not_have_are_its_mean():
    found, indicator, ids = encoded([1.0, 2.0, 3.0, 4.0], [None, float("nan"), 2.5], bins=2)
    assert found.tolist() == [0, 0, 0]
    assert indicator is None
    assert ids.tolist() == [0, 0, 3]


@pytest.mark.parametrize("transform", ["standard", "log1p", "quantile", "none"])
def test_a_column_without_one_value(transform):
    found, indicator, ids = encoded([None] * 3, transform=transform)
    assert found.tolist() == [0, 0, 0]
    assert indicator.tolist() == [1, 1, 1]
    assert ids is None
    later, _, _ = encoded([None] * 3, [5.0, None], transform=transform)
    assert np.isfinite(later).all()
    assert later[1] == 0


@pytest.mark.parametrize("transform", ["standard", "log1p", "quantile"])
@pytest.mark.parametrize("constant", [0.0, 0.1, -7.0, 1234567.891, 1e9 + 0.1])
def test_a_constant_column_is_zero_and_another_value_does_not_explode(constant, transform):
    found, indicator, ids = encoded(
        [constant] * 1777, [constant, constant + 1], batches=3, transform=transform
    )
    assert found[0] == pytest.approx(0, abs=1e-5)
    assert 0 <= found[1] <= 1.0001
    assert indicator is None
    assert ids is None


def test_moments_of_large_values_do_not_cancel():
    """Epoch seconds with a spread of a minute, in many batches."""
    values = 1.7e9 + np.random.default_rng(2).uniform(0, 60, 5000)
    found, _, _ = encoded(values, batches=50, bins=0)
    np.testing.assert_allclose(found, (values - values.mean()) / values.std(), atol=1e-4)


@pytest.mark.parametrize("value", [float("inf"), -float("inf"), 1e200, -3.5e38])
def test_infinities_are_refused_in_training_and_later(value):
    with pytest.raises(DataError, match=r"view\.x: holds infinite values"):
        encoded([1.0, value])
    with pytest.raises(DataError, match=r"view\.x: holds infinite values"):
        encoded([1.0, 2.0], [value])


def test_texts_are_refused_and_every_number_type_taken():
    with pytest.raises(DataError, match=r"view\.x: a dense input needs numbers, the column is String"):
        fitted(table_of(x=["1", "2"]), x={"role": "dense"})
    expected, _, _ = encoded([0.0, 1.0, 1.0])
    for dtype in (pl.Boolean, pl.Int8, pl.UInt64, pl.Float32, pl.Decimal(10, 2)):
        serving = pl.Series([0, 1, 1]).cast(dtype)
        assert encoded([0.0, 1.0, 1.0], serving)[0].tolist() == expected.tolist()


def batches_of(values, size):
    return [values[start : start + size] for start in range(0, len(values), size)]


def fit_batches(batches, transform="quantile", bins=32):
    fitter = DenseFitter(transform, bins)
    for batch in batches:
        fitter.add(batch)
    return fitter.fit()


def test_quantiles_of_millions_of_values_come_close_and_ignore_batch_borders():
    rng = np.random.default_rng(3)
    values = rng.normal(size=2**22 + 12_345)
    values[rng.integers(0, len(values), 1000)] = np.nan
    present = np.sort(values[~np.isnan(values)])
    first = fit_batches(batches_of(values, 131_072))
    ranks = np.searchsorted(present, first.edges) / len(present)
    assert ranks == pytest.approx(np.arange(1, 32) / 32, abs=0.003)
    odd = np.cumsum(rng.integers(1, 400_000, 40))
    second = fit_batches(np.split(values, odd[odd < len(values)]))
    assert first.edges == second.edges
    assert first.knots == second.knots
    assert fit_batches([values]).edges == first.edges


def test_up_to_a_million_values_quantiles_are_exact():
    values = np.random.default_rng(4).permutation(2**20).astype(np.float64)
    edges = fit_batches(batches_of(values, 100_000), bins=4).edges
    assert edges == (2**18 - 1, 2**19 - 1, 3 * 2**18 - 1)


def test_memory_does_not_grow_with_the_number_of_values():
    fitter = DenseFitter("standard", 32)
    tracemalloc.start()
    try:
        for i in range(128):
            fitter.add(np.arange(i, i + 131_072, dtype=np.float64))
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # 2**20 float64 are 8 MB; all the values are 134 MB.
    assert kept < 20e6
