"""Gradient aggregation: the lambdas against hand formulas, and what each method promises."""

import warnings
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_task import config_of
from torchjd.aggregation import IMTLG, MGDA, AlignedMTL, UPGrad

from mtl_rank.errors import ConfigError
from mtl_rank.training.weighting import build_weighting
from mtl_rank.training.weighting.aggregation import AGGREGATORS, GradientAggregation


def lambdas_of(name, gradients, multipliers=None):
    """gradients: (T, n) as NumPy or torch."""
    gradients = torch.as_tensor(gradients, dtype=torch.float64)
    tasks = len(gradients)
    module = GradientAggregation(name, torch.ones(tasks) if multipliers is None else multipliers, seed=0)
    return module(torch.ones(tasks), gradients @ gradients.T).lambdas.double().numpy()


def random_gradients(seed, tasks=2, scales=1.0):
    return np.random.default_rng(seed).normal(size=(tasks, 5)) * scales


SEEDS = st.integers(0, 10_000)
SCALES = st.sampled_from([1e-6, 1e-3, 1.0, 1e3])


@given(SEEDS, SCALES)
def test_pcgrad_takes_from_each_gradient_what_conflicts(seed, scale):
    """g_1 - min(g_1.g_2, 0) / |g_2|^2 g_2 and the other way round (Yu et al. 2020, algorithm 1)."""
    g = random_gradients(seed) * scale
    conflict = min(g[0] @ g[1], 0)
    expected = [1 - conflict / (g[0] @ g[0]), 1 - conflict / (g[1] @ g[1])]
    assert lambdas_of("pcgrad", g) == pytest.approx(expected, rel=1e-5)


@given(SEEDS, SCALES)
def test_mgda_is_the_point_of_the_segment_next_to_zero(seed, scale):
    g = random_gradients(seed) * scale
    between = g[0] - g[1]
    share = np.clip(-(between @ g[1]) / (between @ between), 0, 1)
    # Frank-Wolfe stops at steps below a thousandth.
    assert lambdas_of("mgda", g) == pytest.approx([2 * share, 2 * (1 - share)], abs=0.01)


@given(SEEDS, st.sampled_from([1.0, (1.0, 1e3, 30.0)]), SCALES)
def test_upgrad_harms_no_task(seed, unequal, scale):
    g = random_gradients(seed, 3, np.array([[1.0]] if unequal == 1.0 else [[u] for u in unequal])) * scale
    step = lambdas_of("upgrad", g) @ g
    gains = g @ step / (np.linalg.norm(g, axis=1) * np.linalg.norm(step))
    assert (gains > -1e-3).all()


@given(SEEDS, SCALES)
def test_imtl_g_projects_equally_onto_each_gradient(seed, scale):
    g = random_gradients(seed, 3) * scale
    lambdas = lambdas_of("imtl_g", g)
    projections = g @ (lambdas @ g) / np.linalg.norm(g, axis=1)
    assert projections == pytest.approx([projections[0]] * 3, rel=1e-3)
    assert lambdas.sum() == pytest.approx(3, rel=1e-5)


@given(SEEDS, SCALES)
def test_aligned_mtl_makes_the_gradients_orthogonal_and_as_long_as_the_shortest_axis(seed, scale):
    """Senushkin et al. 2023, eq. 9-10: the gradients are B g with B = sigma_min (G)^(-1/2)."""
    g = random_gradients(seed, 3) * scale
    u, sigma, v = np.linalg.svd(g, full_matrices=False)
    expected = (sigma[-1] * u @ v).sum(axis=0)
    assert lambdas_of("aligned_mtl", g) @ g == pytest.approx(expected, rel=1e-3, abs=1e-4 * sigma[-1])


@given(SEEDS)
@pytest.mark.parametrize(
    ("name", "whole"),
    [("mgda", MGDA()), ("imtl_g", IMTLG()), ("aligned_mtl", AlignedMTL()), ("upgrad", UPGrad())],
)
def test_the_direction_is_that_of_torchjd_on_whole_gradients(name, whole, seed):
    g = random_gradients(seed, 4)
    expected = len(g) * whole(torch.tensor(g)).numpy()
    assert lambdas_of(name, g) @ g == pytest.approx(expected, abs=0.03 * np.linalg.norm(g))


@pytest.mark.parametrize("name", ["pcgrad", "upgrad"])
def test_gradients_without_conflict_are_added_up(name):
    g = np.abs(random_gradients(3, 3))
    assert lambdas_of(name, g) == pytest.approx([1, 1, 1], rel=1e-4)


@pytest.mark.parametrize("name", ["pcgrad", "mgda", "upgrad", "imtl_g", "aligned_mtl"])
def test_multipliers_weigh_the_losses_before_gradients_are_combined(name):
    g = random_gradients(5, 3)
    c = torch.tensor([1.0, 0.2, 3.0])
    expected = lambdas_of(name, c.numpy()[:, None] * g)
    assert lambdas_of(name, g, c) == pytest.approx(c.numpy() * expected, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("name", ["pcgrad", "mgda", "upgrad", "imtl_g", "aligned_mtl"])
def test_a_task_without_rows_leaves_the_others_as_they_were(name):
    g = random_gradients(7, 3)
    gone = g * [[1.0], [0.0], [1.0]]
    found = lambdas_of(name, gone)
    assert found[1] == 0
    assert found[[0, 2]] == pytest.approx(lambdas_of(name, g[[0, 2]]), rel=1e-5)


def test_the_order_of_pcgrad_is_drawn_anew_in_every_step():
    g = torch.tensor([[1.0, 0.0, 0.0], [-0.5, 1.0, 0.0], [-0.3, -0.4, 1.0]], dtype=torch.float64)
    module = GradientAggregation("pcgrad", torch.ones(3), seed=0)
    drawn = {tuple(module(torch.ones(3), g @ g.T).lambdas.tolist()) for _ in range(20)}
    assert len(drawn) > 1


NEEDING = [name for name, aggregator in AGGREGATORS.items() if aggregator.needs]
INSTALLED = [name for name, aggregator in AGGREGATORS.items() if all(map(find_spec, aggregator.needs))]


@pytest.mark.parametrize("name", INSTALLED)
def test_a_task_alone_in_a_batch_has_lambda_one(name):
    """The only task of a training, or the only one with rows in a small batch."""
    assert lambdas_of(name, random_gradients(1, 1)) == pytest.approx([1], rel=1e-6)
    with_others = np.array([[0.0, 0.0], [0.3, -0.4], [0.0, 0.0]])
    assert lambdas_of(name, with_others) == pytest.approx([0, 1, 0], rel=1e-6)


@pytest.mark.parametrize("name", INSTALLED)
def test_opposed_gradients_have_finite_lambdas_and_no_warning(name):
    """Each of two tasks undoes what the other one does: whatever comes of it, no screen full of NumPy's warnings."""
    for g in (np.array([[1.0, 0.0], [-1.0, 0.0]]), np.array([[0.6, 0.8], [-1.2, -1.6]])):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert np.isfinite(lambdas_of(name, g)).all()


@pytest.mark.parametrize("name", [name for name in NEEDING if name in INSTALLED])
def test_methods_of_the_extra_agree_with_the_others_where_nothing_conflicts(name):
    assert lambdas_of(name, np.eye(2)) == pytest.approx([1, 1], rel=1e-3)
    conflict = np.array([[1.0, 0.0, 0.2], [-0.5, 0.8, 0.1], [0.3, -0.7, 0.4]])
    step = lambdas_of(name, conflict) @ conflict
    assert (conflict @ step > 0).all()


@pytest.mark.parametrize("name", NEEDING)
def test_methods_of_the_extra_say_what_they_need(name, monkeypatch):
    monkeypatch.setattr("mtl_rank.training.weighting.aggregation.find_spec", lambda package: None)
    with pytest.raises(ConfigError, match=rf"weighting\.method: {name} needs .*mtl-rank\[convex\]"):
        build_weighting(config_of(weighting={"method": name}), 9)
