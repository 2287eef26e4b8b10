"""Validation numbers against scikit-learn and their definitions."""

import math

import numpy as np
import pytest
from sklearn.metrics import log_loss, r2_score, roc_auc_score

from mtl_rank.config import Fit
from mtl_rank.data.labels import Target
from mtl_rank.errors import ConfigError
from mtl_rank.training.validation import check_monitor, improves, monitored_names, validation_metrics

TARGETS = (
    Target("ctr", "clicked", "binary", "none", None, 0.3, 1.0, 100, 30),
    Target("cvr", "bought", "binary", "none", 0, 0.5, 1.0, 30, 15),
    Target("dwell", "seconds", "regression", "log1p", 0, 2.0, 0.5, 30, 30),
)


def random_results(rows=500, seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(rows, 3))
    labels = np.stack(
        [
            rng.random(rows) < 1 / (1 + np.exp(-logits[:, 0])),
            rng.random(rows) < 0.4,
            logits[:, 2] + rng.normal(size=rows),
        ],
        axis=1,
    )
    labels[labels[:, 0] != 1, 1:] = np.nan
    return logits, labels


def test_numbers_are_those_of_sklearn_on_the_labelled_rows():
    logits, labels = random_results()
    found = validation_metrics(logits, labels, TARGETS)
    losses = []
    for i, name in enumerate(("ctr", "cvr")):
        rows = ~np.isnan(labels[:, i])
        y, p = labels[rows, i], 1 / (1 + np.exp(-logits[rows, i]))
        rate = y.mean()
        entropy = -(rate * math.log(rate) + (1 - rate) * math.log(1 - rate))
        losses.append(log_loss(y, p) / entropy)
        assert found[f"valid/{name}/auc"] == pytest.approx(roc_auc_score(y, p))
        assert found[f"valid/{name}/ne"] == pytest.approx(losses[-1])
        assert found[f"valid/{name}/calibration"] == pytest.approx(p.sum() / y.sum())
    rows = ~np.isnan(labels[:, 2])
    losses.append(1 - r2_score(labels[rows, 2], logits[rows, 2]))
    assert found["valid/dwell/nmse"] == pytest.approx(losses[-1])
    assert found["valid/ne"] == pytest.approx(np.mean(losses))
    assert set(found) == set(monitored_names(TARGETS))


def test_a_constant_prediction_of_the_mean_has_loss_1():
    logits, labels = random_results()
    for i in range(3):
        mean = np.nanmean(labels[:, i])
        logits[:, i] = mean if i == 2 else math.log(mean / (1 - mean))
    found = validation_metrics(logits, labels, TARGETS)
    assert [found[f"valid/{name}"] for name in ("ctr/ne", "cvr/ne", "dwell/nmse", "ne")] == pytest.approx(
        [1] * 4
    )


def test_numbers_that_are_not_defined_are_left_out():
    logits, labels = random_results()
    labels[:, 1] = np.nan
    labels[labels[:, 0] == 1, 2] = 0.75
    found = validation_metrics(logits, labels, TARGETS)
    assert {"valid/ctr/auc", "valid/ctr/ne", "valid/ctr/calibration", "valid/ne"} == set(found)
    assert found["valid/ne"] == found["valid/ctr/ne"]
    labels[:, 0] = 1
    assert set(validation_metrics(logits, labels, TARGETS)) == {"valid/ctr/calibration"}


def test_extreme_logits_have_finite_numbers():
    logits, labels = random_results()
    logits[:, :2] = np.where(logits[:, :2] > 0, 1e4, -1e4)
    assert all(math.isfinite(value) for value in validation_metrics(logits, labels, TARGETS).values())


def test_only_metrics_of_the_tasks_can_be_monitored():
    kinds = {"ctr": "binary", "dwell": "regression"}
    for monitor in ("valid/ne", "valid/ctr/auc", "valid/ctr/ne", "valid/dwell/nmse"):
        check_monitor(Fit(monitor=monitor), kinds)
    for monitor, meant in (("valid/ctr/acu", "valid/ctr/auc"), ("valid/dwell/mse", "valid/dwell/nmse")):
        with pytest.raises(ConfigError, match=rf"fit\.monitor: .*did you mean '{meant}'"):
            check_monitor(Fit(monitor=monitor), kinds)
    for monitor in ("valid/ctr/calibration", "valid/dwell/auc", "valid/cvr/auc", "auc"):
        with pytest.raises(ConfigError, match=r"fit\.monitor"):
            check_monitor(Fit(monitor=monitor), kinds)


def test_the_monitored_mean_weighs_the_tasks_as_told():
    logits, labels = random_results()
    plain = validation_metrics(logits, labels, TARGETS)
    found = validation_metrics(logits, labels, TARGETS, {"ctr": 3, "dwell": 0})
    assert found["valid/ne"] == pytest.approx((3 * plain["valid/ctr/ne"] + plain["valid/cvr/ne"]) / 4)
    assert {**found, "valid/ne": 0} == {**plain, "valid/ne": 0}
    labels[:, :2] = np.nan
    assert "valid/ne" not in validation_metrics(logits, labels, TARGETS, {"dwell": 0})


WEIGHTS = [
    ({"ctrr": 1}, {}, "there is no task 'ctrr'; did you mean 'ctr'"),
    ({"ctr": 0, "dwell": 0}, {}, "every weight is 0"),
    ({"ctr": 2}, {"monitor": "valid/ctr/auc"}, "valid/ctr/auc is a single metric and would ignore them"),
]


@pytest.mark.parametrize(("weights", "options", "message"), WEIGHTS)
def test_weights_that_say_nothing_are_refused(weights, options, message):
    fit = Fit(monitor_weights=weights, **options)
    with pytest.raises(ConfigError, match=rf"fit\.monitor_weights: {message}"):
        check_monitor(fit, {"ctr": "binary", "dwell": "regression"})
    check_monitor(Fit(monitor_weights={"dwell": 0}), {"ctr": "binary", "dwell": "regression"})


def test_higher_is_better_for_auc_and_lower_for_losses():
    assert improves("valid/ctr/auc", 0.8, 0.7)
    assert not improves("valid/ctr/auc", 0.7, 0.8)
    for monitor in ("valid/ne", "valid/ctr/ne", "valid/dwell/nmse"):
        assert improves(monitor, 0.7, 0.8)
        assert not improves(monitor, 0.8, 0.7)
    assert not improves("valid/ne", 0.7, 0.7)
    assert improves("valid/ne", 5.0, None)
