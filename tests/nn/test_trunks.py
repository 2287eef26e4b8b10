"""Trunks and towers recomputed by NumPy from their formulas, with random weights."""

import numpy as np
import pytest
import torch
from random_inputs import randomise
from torch import nn

from mtl_rank.nn.heads import Towers
from mtl_rank.nn.layers import LayerOptions
from mtl_rank.nn.trunks import PLE, MMoE, Separate, SharedBottom, WideFirst

ROWS, N_IN = 7, 6
E = torch.randn(ROWS, N_IN, generator=torch.Generator().manual_seed(3))
WIDTHS = [(5,), (5, 4), (4, 3, 2)]
PLAIN = LayerOptions()
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def array(tensor):
    return tensor.detach().numpy().astype(np.float64)


def relu(x):
    return np.maximum(x, 0)


def network_by_hand(module, index, widths):
    """Network `index` of a WideFirst on E: h_1 = relu(W_1 e + b_1), h_l = relu(W_l h_(l-1) + b_l)."""
    rows = slice(index * widths[0], (index + 1) * widths[0])
    weight, bias = array(module.first.weight)[rows], array(module.first.bias)[rows]
    hidden = relu(np.stack([weight @ e + bias for e in array(E)]))
    for layer in module.rest:
        if hasattr(layer, "weight"):
            weight, bias = array(layer.weight)[index], array(layer.bias)[index]
            hidden = relu(np.stack([h @ weight + bias[0] for h in hidden]))
    return hidden


@pytest.mark.parametrize("networks", [1, 3])
@pytest.mark.parametrize("widths", WIDTHS)
def test_wide_first_is_k_separate_networks(networks, widths):
    wide = randomise(WideFirst(N_IN, networks, widths, PLAIN, extra=2))
    together, extra = wide(E)
    assert together.shape == (ROWS, networks, widths[-1])
    for k in range(networks):
        layers = []
        for n_in, n_out in zip((N_IN, *widths), widths, strict=False):
            layers += [nn.Linear(n_in, n_out), nn.ReLU()]
        own = nn.Sequential(*layers)
        grouped = [layer for layer in wide.rest if hasattr(layer, "weight")]
        with torch.no_grad():
            own[0].weight.copy_(wide.first.weight[k * widths[0] : (k + 1) * widths[0]])
            own[0].bias.copy_(wide.first.bias[k * widths[0] : (k + 1) * widths[0]])
            for linear, layer in zip(own[2::2], grouped, strict=True):
                linear.weight.copy_(layer.weight[k].T)
                linear.bias.copy_(layer.bias[k, 0])
        torch.testing.assert_close(together[:, k], own(E), **CLOSE)
        np.testing.assert_allclose(array(together[:, k]), network_by_hand(wide, k, widths), **CLOSE)
    np.testing.assert_allclose(
        array(extra), array(E) @ array(wide.first.weight)[-2:].T + array(wide.first.bias)[-2:], **CLOSE
    )


@pytest.mark.parametrize("tasks", [1, 5])
@pytest.mark.parametrize("widths", WIDTHS)
def test_shared_bottom_gives_every_task_the_same_vector(tasks, widths):
    trunk = randomise(SharedBottom(N_IN, tasks, widths, PLAIN))
    found = array(trunk(E))
    assert found.shape == (ROWS, tasks, trunk.width)
    for task in range(tasks):
        np.testing.assert_allclose(found[:, task], network_by_hand(trunk.bottom, 0, widths), **CLOSE)


@pytest.mark.parametrize("tasks", [1, 5])
@pytest.mark.parametrize("widths", WIDTHS)
def test_separate_gives_every_task_its_own_network(tasks, widths):
    trunk = randomise(Separate(N_IN, tasks, widths, PLAIN))
    found = array(trunk(E))
    assert found.shape == (ROWS, tasks, trunk.width)
    for task in range(tasks):
        np.testing.assert_allclose(found[:, task], network_by_hand(trunk.networks, task, widths), **CLOSE)


@pytest.mark.parametrize("tasks", [1, 5])
@pytest.mark.parametrize("experts", [1, 3])
@pytest.mark.parametrize("widths", WIDTHS)
def test_mmoe_mixes_experts_by_a_softmax_gate_per_task(tasks, experts, widths):
    """sum_k g_k^t(e) f_k(e), g^t = softmax(W^t e + b^t), the gate's outputs one task after another."""
    trunk = randomise(MMoE(N_IN, tasks, experts, widths, PLAIN))
    found = array(trunk(E))
    assert found.shape == (ROWS, tasks, trunk.width)
    first = experts * widths[0]
    weight, bias = array(trunk.experts.first.weight)[first:], array(trunk.experts.first.bias)[first:]
    outputs = [network_by_hand(trunk.experts, k, widths) for k in range(experts)]
    for task in range(tasks):
        own = slice(task * experts, (task + 1) * experts)
        scores = np.exp(array(E) @ weight[own].T + bias[own])
        gates = scores / scores.sum(axis=1, keepdims=True)
        expected = sum(gates[:, [k]] * outputs[k] for k in range(experts))
        np.testing.assert_allclose(found[:, task], expected, **CLOSE)


def test_with_one_expert_the_gates_do_not_matter():
    trunk = randomise(MMoE(N_IN, 3, 1, (5, 4), PLAIN))
    before = trunk(E)
    with torch.no_grad():
        trunk.experts.first.weight[5:] += 7
    torch.testing.assert_close(trunk(E), before, **CLOSE)


@pytest.mark.parametrize("tasks", [1, 5])
@pytest.mark.parametrize("layers", [(), (4,), (4, 3)])
def test_a_tower_per_task(tasks, layers):
    towers = randomise(Towers(6, layers, torch.zeros(tasks), PLAIN))
    x = torch.randn(ROWS, tasks, 6, generator=torch.Generator().manual_seed(5))
    found = towers(x)
    assert found.shape == (ROWS, tasks)
    hidden_layers = [layer for layer in towers.hidden if hasattr(layer, "weight")]
    assert len(hidden_layers) == len(layers)
    for task in range(tasks):
        h = array(x[:, task])
        for layer in hidden_layers:
            h = relu(h @ array(layer.weight)[task] + array(layer.bias)[task])
        expected = h @ array(towers.output.weight)[task] + array(towers.output.bias)[task]
        np.testing.assert_allclose(array(found[:, task]), expected[:, 0], **CLOSE)


def test_towers_start_at_the_prior_logits():
    """Then the mean prediction of an untrained network is the base rate, not one half."""
    prior = torch.tensor([-4.0, 0.0, 2.0])
    towers = Towers(6, (4,), prior, PLAIN)
    with torch.no_grad():
        towers.output.weight.zero_()
    torch.testing.assert_close(towers(torch.randn(5, 3, 6)), prior.expand(5, 3))


@pytest.mark.parametrize("make", [SharedBottom, Separate])
def test_dropout_acts_in_training_only(make):
    trunk = randomise(make(N_IN, 2, (50, 40), LayerOptions(dropout=0.5)))
    torch.manual_seed(0)
    assert not torch.equal(trunk(E), trunk(E))
    trunk.eval()
    assert torch.equal(trunk(E), trunk(E))


@pytest.mark.parametrize("tasks", [1, 5])
def test_omoe_mixes_by_one_gate_for_all_tasks(tasks):
    trunk = randomise(MMoE(N_IN, tasks, 3, (5, 4), PLAIN, one_gate=True))
    found = array(trunk(E))
    assert found.shape == (ROWS, tasks, 4)
    weight, bias = array(trunk.experts.first.weight)[15:], array(trunk.experts.first.bias)[15:]
    gates = softmax(array(E) @ weight.T + bias)
    expected = sum(gates[:, [k]] * network_by_hand(trunk.experts, k, (5, 4)) for k in range(3))
    for task in range(tasks):
        np.testing.assert_allclose(found[:, task], expected, **CLOSE)


def softmax(scores):
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    return scores / scores.sum(axis=1, keepdims=True)


def ple_by_hand(trunk, tasks, own, shared, levels, widths):
    """Each network and each gate on its own, level by level, as the paper writes them."""
    inputs = [array(E)] * (tasks + 1)
    experts = tasks * own + shared
    for level in range(levels):
        last = level == levels - 1
        outputs, gates = [], []
        if level == 0:
            outputs = [network_by_hand(trunk.first, k, widths) for k in range(experts)]
            weight = array(trunk.first.first.weight)[experts * widths[0] :]
            bias = array(trunk.first.first.bias)[experts * widths[0] :]
            for t in range(tasks):
                rows = slice(t * (own + shared), (t + 1) * (own + shared))
                gates.append(softmax(inputs[t] @ weight[rows].T + bias[rows]))
            if not last:
                rows = slice(tasks * (own + shared), None)
                gates.append(softmax(inputs[tasks] @ weight[rows].T + bias[rows]))
        else:
            module = trunk.deeper[level - 1]
            layers = [layer for layer in module.networks if hasattr(layer, "weight")]
            for k in range(experts):
                h = inputs[min(k // own, tasks) if k < tasks * own else tasks]
                for layer in layers:
                    h = relu(h @ array(layer.weight)[k] + array(layer.bias)[k, 0])
                outputs.append(h)
            for t in range(tasks):
                weight, bias = array(module.task_gates.weight)[t], array(module.task_gates.bias)[t, 0]
                gates.append(softmax(inputs[t] @ weight + bias))
            if not last:
                weight, bias = array(module.shared_gate.weight), array(module.shared_gate.bias)
                gates.append(softmax(inputs[tasks] @ weight.T + bias))
        mixed = []
        for t in range(tasks):
            seen = [*outputs[t * own : (t + 1) * own], *outputs[tasks * own :]]
            mixed.append(sum(gates[t][:, [k]] * one for k, one in enumerate(seen)))
        if not last:
            mixed.append(sum(gates[tasks][:, [k]] * one for k, one in enumerate(outputs)))
        inputs = mixed
    return np.stack(inputs, axis=1)


@pytest.mark.parametrize(("tasks", "own", "shared"), [(1, 2, 1), (2, 1, 3), (5, 2, 2)])
@pytest.mark.parametrize("levels", [1, 2, 3])
@pytest.mark.parametrize("widths", [(5,), (5, 4)])
def test_ple_is_levels_of_gated_experts_of_tasks_and_of_all(tasks, own, shared, levels, widths):
    trunk = randomise(PLE(N_IN, tasks, own, shared, levels, widths, PLAIN))
    found = array(trunk(E))
    assert found.shape == (ROWS, tasks, trunk.width)
    np.testing.assert_allclose(found, ple_by_hand(trunk, tasks, own, shared, levels, widths), **CLOSE)


def test_the_last_level_of_ple_has_no_shared_gate_and_one_before_sees_all_experts():
    trunk = PLE(N_IN, 2, 3, 4, 3, (5,), PLAIN)
    assert trunk.first.split == [(2 * 3 + 4) * 5, 2 * (3 + 4) + (2 * 3 + 4)]
    assert [level.shared_gate is None for level in trunk.deeper] == [False, True]
    assert trunk.deeper[0].shared_gate.out_features == 2 * 3 + 4


@pytest.mark.parametrize(
    ("trunk", "levels"),
    [
        (MMoE(N_IN, 3, 4, (5,), PLAIN), [4]),
        (MMoE(N_IN, 3, 4, (5,), PLAIN, one_gate=True), [4]),
        (PLE(N_IN, 3, 2, 4, 2, (5,), PLAIN), [6, 6]),
        (SharedBottom(N_IN, 3, (5,), PLAIN), []),
    ],
)
def test_gates_can_be_looked_at(trunk, levels):
    """Weights per task and level that sum to one, and with all of one expert's they give its output alone."""
    gates = randomise(trunk).gates(E)
    assert [gate.shape for gate in gates] == [(ROWS, 3, experts) for experts in levels]
    for gate in gates:
        torch.testing.assert_close(gate.sum(dim=2), torch.ones(ROWS, 3))
        assert (gate > 0).all()
