"""Calibration maps against scikit-learn and the truth; what a run stores and applies."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from mtl_rank.calibration import FITS, ROWS_PER_KNOT, Calibration, choose, fit_isotonic
from mtl_rank.config import parse_config
from mtl_rank.errors import ConfigError, RunError
from mtl_rank.metrics import auc, calibration, normalised_entropy

N = 40_000


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


@pytest.fixture(scope="module")
def rows():
    """Logits of the truth, and the labels they give: two halves."""
    rng = np.random.default_rng(0)
    truth = rng.normal(-2.2, 1.1, 2 * N)
    labels = (rng.random(2 * N) < sigmoid(truth)).astype(float)
    return truth, labels


BENT = {
    "promises ten times too much": lambda z: z + 2.5,
    "too sure": lambda z: 2.5 * z + 1,
    "too timid": lambda z: 0.3 * z - 0.5,
    "bent at one end": lambda z: z + 0.8 * np.maximum(z + 2, 0) ** 1.5,
}


@pytest.mark.parametrize("bend", BENT)
@pytest.mark.parametrize("method", ["isotonic", "platt", "beta", "temperature"])
def test_a_miscalibrated_model_comes_within_one_percent_of_the_truths_entropy(rows, bend, method):
    truth, labels = rows
    logits = BENT[bend](truth)
    found = FITS[method](logits[:N], labels[:N])
    after = sigmoid(found(logits[N:]))
    wanted = normalised_entropy(labels[N:], sigmoid(truth[N:]))
    before = normalised_entropy(labels[N:], sigmoid(logits[N:]))
    reached = normalised_entropy(labels[N:], after)
    assert reached < before
    # A temperature cannot move the mean, and straight lines do not undo a bend wholly.
    reachable = method == "isotonic" or (method != "temperature" and bend != "bent at one end")
    if reachable:
        assert reached < 1.01 * wanted
        assert calibration(labels[N:], after) == pytest.approx(1, abs=0.05)
    assert auc(labels[N:], after) == pytest.approx(auc(labels[N:], logits[N:]), abs=1e-9)


def test_platt_equals_an_unregularised_logistic_regression(rows):
    truth, labels = rows
    logits = 1.7 * truth[:N] + 0.4
    found = FITS["platt"](logits, labels[:N])
    expected = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(logits[:, None], labels[:N])
    # Platt's targets count one more row of each class.
    assert found.slope == pytest.approx(expected.coef_[0, 0], rel=1e-3)
    assert found.intercept == pytest.approx(expected.intercept_[0], abs=1e-3)


def test_beta_and_temperature_find_what_was_done_to_the_truth(rows):
    truth, labels = rows
    assert FITS["temperature"](3 * truth, labels).temperature == pytest.approx(3, rel=0.03)
    log_p, log_q = -np.logaddexp(0, -truth), -np.logaddexp(0, truth)
    found = FITS["beta"](
        truth, (np.random.default_rng(1).random(2 * N) < sigmoid(2 * log_p - 0.5 * log_q)) * 1.0
    )
    assert (found.a, found.b, found.c) == pytest.approx((2, 0.5, 0), abs=0.3)


def test_isotonic_goes_through_the_blocks_of_sklearn(rows):
    logits, labels = np.round(rows[0][:5000] * 2, 1), rows[1][:5000]
    found = fit_isotonic(logits, labels)
    # Its bins: equal mass, ties together; one row of the base rate in each.
    order = np.argsort(logits, kind="stable")
    count = 5000 // ROWS_PER_KNOT
    starts = sorted(
        {int(np.searchsorted(logits[order], logits[order][i * 5000 // count])) for i in range(count)}
    )
    bins = np.split(order, starts[1:])
    rates = np.array([(labels[b].sum() + labels.mean()) / (len(b) + 1) for b in bins])
    mass = np.array([len(b) + 1 for b in bins])
    fitted = (
        IsotonicRegression()
        .fit(np.arange(len(bins)), rates, sample_weight=mass)
        .predict(np.arange(len(bins)))
    )
    blocks = np.unique(np.round(fitted, 12))
    assert sigmoid(np.array(found.values)) == pytest.approx(blocks, abs=1e-9)
    for knot, value in zip(found.knots, found.values, strict=True):
        assert found(np.array([knot])) == pytest.approx([value])
        inside = np.concatenate(
            [b for b, f in zip(bins, fitted, strict=True) if np.isclose(f, sigmoid(value))]
        )
        assert knot == pytest.approx(logits[inside].mean())


@pytest.mark.parametrize("method", FITS)
@settings(max_examples=30)
@given(st.integers(0, 10_000), st.sampled_from([300, 2000]), st.floats(0.02, 0.98))
def test_every_map_keeps_the_order_and_stays_finite(method, seed, size, rate):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, size)
    labels = (rng.random(size) < rate).astype(float)
    labels[:2] = 0, 1
    found = FITS[method](logits, labels)
    wide = np.sort(np.concatenate([logits, np.linspace(-60, 60, 500)]))
    if found is not None:
        mapped = found(wide)
        assert np.isfinite(mapped).all()
        assert (np.diff(mapped) >= -1e-9).all()


@pytest.mark.parametrize("method", FITS)
def test_labels_that_the_logits_separate_do_not_run_away(method):
    logits = np.linspace(-3, 3, 400)
    found = FITS[method](logits, (logits > 0).astype(float))
    assert np.isfinite(found(np.array([-50.0, 50.0]))).all()


def test_a_model_that_ranks_backwards_is_left_alone():
    rng = np.random.default_rng(2)
    logits = rng.normal(0, 1, 3000)
    labels = (rng.random(3000) < sigmoid(-2 * logits)).astype(float)
    assert [FITS[name](logits, labels) for name in ("platt", "temperature")] == [None, None]
    assert fit_isotonic(logits, labels) is None


def test_auto_takes_nothing_where_nothing_is_wrong_and_the_right_thing_elsewhere(rows):
    truth, labels = rows
    assert choose(truth[:N], labels[:N]).map is None
    found, losses = choose(truth[:N] + 1.5, labels[:N])
    assert found.method in ("platt", "beta", "isotonic")
    assert losses[found.method] == min(losses.values()) < losses["none"] < losses["none"] + 1
    assert choose(truth[:100] + 5, labels[:100]).map is None, "too few rows to prove anything"


def test_what_is_stored_gives_the_same_numbers_to_the_last_bit(rows, tmp_path):
    truth, labels = rows
    logits = np.column_stack([2 * truth, truth + 1, truth])
    maps = {name: FITS[name](logits[:, i], labels) for i, name in enumerate(["isotonic", "beta"])}
    stored = Calibration(maps)
    stored.save(tmp_path / "calibration.json")
    names = ["isotonic", "beta", "third"]
    loaded = Calibration.load(tmp_path / "calibration.json", names)
    assert loaded == stored
    assert (loaded(logits, names) == stored(logits, names)).all()
    assert (loaded(logits, names)[:, 2] == logits[:, 2]).all()
    # Row for row: chunks change nothing.
    assert (loaded(logits[7:1000], names) == stored(logits, names)[7:1000]).all()


def test_a_damaged_calibration_is_told(tmp_path):
    path = tmp_path / "calibration.json"
    for text in (
        "{",
        json.dumps({"format": 9}),
        json.dumps({"format": 1, "tasks": {"ctr": {"method": "plat"}}}),
    ):
        path.write_text(text)
        with pytest.raises(RunError, match="cannot be read"):
            Calibration.load(path, ["ctr"])
    path.write_text(json.dumps({"format": 1, "tasks": {"x": {"method": "temperature", "temperature": 2.0}}}))
    with pytest.raises(RunError, match="tasks are not those"):
        Calibration.load(path, ["ctr"])


CONFIG = """
feature_service: s
examples: e.parquet
split: {valid: 2026-01-01, test: 2026-01-02}
tasks: {ctr: {label: y}, dwell: {label: z, kind: regression}}
calibration: %s
"""


def test_configuration_names_methods_and_tasks():
    config = parse_config(CONFIG % "{method: auto, tasks: {ctr: platt}}", "mtlrank.yaml")
    assert [config.calibration_of(name) for name in ("ctr", "dwell")] == ["platt", "none"]
    for text, message in [
        ("{method: plat}", "calibration.method"),
        ("{tasks: {crt: platt}}", "did you mean 'ctr'"),
        ("{tasks: {dwell: platt}}", "only binary tasks are calibrated"),
    ]:
        with pytest.raises(ConfigError, match=message):
            parse_config(CONFIG % text, "mtlrank.yaml")
