"""The optimizer: AdamW for dense parameters, and for tables a row-wise rule that touches named rows only."""

import numpy as np
import pytest
import torch
from torch import nn

from mtl_rank.training.optim import RankingOptimizer, learning_rate_factor, sum_by_row

ROWS, DIM = 10, 3


def parameter(*shape, seed=0):
    return nn.Parameter(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)))


def sparse_gradient(rows, seed):
    """One gradient row per entry of `rows`; a row may come several times."""
    values = torch.randn(len(rows), DIM, generator=torch.Generator().manual_seed(seed))
    index = torch.tensor([rows], dtype=torch.int64)
    return torch.sparse_coo_tensor(index, values, (ROWS, DIM), check_invariants=True)


def of_table(table, l2=0.0, lr=0.1, rule="adagrad"):
    return RankingOptimizer(
        dense=[], tables=[table], lr=1e-3, weight_decay=0.0, table_lr=lr, table_l2=l2, table_rule=rule
    )


STEPS = [[1, 1, 4], [4, 9, 1, 1, 4], [0], [9, 9, 9, 0]]


@pytest.mark.parametrize("l2", [0.0, 0.3])
def test_rows_follow_row_wise_adagrad(l2):
    """s_r += mean(g_r^2), w_r -= lr g_r / (sqrt(s_r) + eps); g_r the sum of a row's gradients, plus l2 w_r."""
    table = parameter(ROWS, DIM)
    optimizer = of_table(table, l2)
    weights, sums = table.detach().numpy().astype(np.float64), np.zeros(ROWS)
    for seed, rows in enumerate(STEPS):
        gradient = sparse_gradient(rows, seed)
        for row in set(rows):
            g = gradient.to_dense()[row].numpy() + l2 * weights[row]
            sums[row] += (g**2).mean()
            weights[row] -= 0.1 * g / (np.sqrt(sums[row]) + RankingOptimizer.EPS)
        table.grad = gradient
        optimizer.step()
        np.testing.assert_allclose(table.detach().numpy(), weights, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("l2", [0.0, 0.3])
def test_rows_follow_lazy_adam(l2):
    """Moments of the touched rows alone advance; their bias is that of the steps of the table."""
    table = parameter(ROWS, DIM)
    optimizer = of_table(table, l2, rule="adam")
    weights = table.detach().numpy().astype(np.float64)
    mean, square = np.zeros((ROWS, DIM)), np.zeros((ROWS, DIM))
    for step, rows in enumerate(STEPS, start=1):
        gradient = sparse_gradient(rows, step)
        for row in set(rows):
            g = gradient.to_dense()[row].numpy() + l2 * weights[row]
            mean[row] = 0.9 * mean[row] + 0.1 * g
            square[row] = 0.999 * square[row] + 0.001 * g**2
            corrected = np.sqrt(square[row] / (1 - 0.999**step))
            weights[row] -= 0.1 * mean[row] / (1 - 0.9**step) / (corrected + 1e-8)
        table.grad = gradient
        optimizer.step()
        np.testing.assert_allclose(table.detach().numpy(), weights, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rule", ["adagrad", "adam"])
@pytest.mark.parametrize("l2", [0.0, 0.3])
def test_rows_that_a_batch_does_not_name_stay_bit_equal(l2, rule):
    table = parameter(ROWS, DIM)
    optimizer = of_table(table, l2, rule=rule)
    for seed, rows in enumerate(STEPS):
        before = table.detach().clone()
        table.grad = sparse_gradient(rows, seed)
        optimizer.step()
        same = (table == before).all(dim=1)
        assert same.tolist() == [row not in rows for row in range(ROWS)]


@pytest.mark.parametrize("rows", [[], [3], [3, 3, 3], [9, 0, 9, 1, 0, 0]])
def test_the_gradients_of_a_row_are_summed(rows):
    gradient = sparse_gradient(rows, 1)
    index, values = sum_by_row(gradient)
    assert index.tolist() == sorted(set(rows))
    torch.testing.assert_close(values, gradient.to_dense()[index])


def test_a_table_without_a_gradient_is_left_alone():
    table = parameter(ROWS, DIM)
    before = table.detach().clone()
    optimizer = of_table(table, l2=0.3)
    optimizer.step()
    table.grad = sparse_gradient([], 0)
    optimizer.step()
    assert torch.equal(table, before)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_dense_parameters_follow_adamw(weight_decay):
    ours, theirs = parameter(4, 5), parameter(4, 5)
    scale, reference_scale = parameter(3, seed=1), parameter(3, seed=1)
    table = parameter(ROWS, DIM)
    optimizer = RankingOptimizer(
        dense=[ours],
        tables=[table],
        lr=0.01,
        weight_decay=weight_decay,
        table_lr=0.1,
        table_l2=0.0,
        undecayed=[scale],
        undecayed_lr=0.03,
    )
    reference = torch.optim.AdamW(
        [
            {"params": [theirs], "weight_decay": weight_decay},
            {"params": [reference_scale], "weight_decay": 0.0, "lr": 0.03},
        ],
        lr=0.01,
    )
    for seed in range(12):
        generator = torch.Generator().manual_seed(seed)
        for p, q in ((ours, theirs), (scale, reference_scale)):
            p.grad = torch.randn(p.shape, generator=generator)
            q.grad = p.grad.clone()
        table.grad = sparse_gradient([seed % ROWS], seed)
        optimizer.step()
        reference.step()
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(scale, reference_scale, rtol=1e-5, atol=1e-7)


def test_the_closure_runs_once_and_with_gradients():
    weight = parameter(2)
    optimizer = RankingOptimizer([weight], [], lr=0.1, weight_decay=0.0, table_lr=0.1, table_l2=0.0)
    calls = []

    def closure():
        optimizer.zero_grad()
        loss = (weight**2).sum()
        loss.backward()
        calls.append(loss.item())
        return loss

    before = weight.detach().clone()
    loss = optimizer.step(closure)
    assert calls == [loss.item()]
    assert not torch.equal(weight, before)


@pytest.mark.parametrize("rule", ["adagrad", "adam"])
def test_a_restored_optimizer_continues_as_if_nothing_had_happened(rule):
    def make():
        dense, table, scale = parameter(4, 5), parameter(ROWS, DIM, seed=1), parameter(3, seed=2)
        optimizer = RankingOptimizer(
            dense=[dense],
            tables=[table],
            lr=0.01,
            weight_decay=0.1,
            table_lr=0.1,
            table_l2=0.01,
            table_rule=rule,
            undecayed=[scale],
        )
        return optimizer, (dense, table, scale)

    def run(optimizer, parameters, seeds):
        for seed in seeds:
            generator = torch.Generator().manual_seed(seed)
            dense, table, scale = parameters
            dense.grad, scale.grad = (
                torch.randn(4, 5, generator=generator),
                torch.randn(3, generator=generator),
            )
            table.grad = sparse_gradient(STEPS[seed % len(STEPS)], seed)
            optimizer.step()

    whole, expected = make()
    run(whole, expected, range(9))
    first, parameters = make()
    run(first, parameters, range(5))
    second, restored = make()
    with torch.no_grad():
        for p, q in zip(restored, parameters, strict=True):
            p.copy_(q)
    second.load_state_dict(first.state_dict())
    run(second, restored, range(5, 9))
    for p, q in zip(restored, expected, strict=True):
        assert torch.equal(p, q)


@pytest.mark.parametrize(("norm", "expected"), [(0.5, 0.5), (4.0, 4.0), (1e9, None), (None, None)])
def test_clipping_scales_the_gradients_of_tables_and_layers_alike(norm, expected):
    """With one step of plain Adagrad and AdamW's first moment the scaled gradients can be read off."""
    dense, table = parameter(4, 5), parameter(ROWS, DIM, seed=1)
    optimizer = RankingOptimizer(
        dense=[dense], tables=[table], lr=0.01, weight_decay=0.0, table_lr=0.1, table_l2=0.0, clip_norm=norm
    )
    dense.grad = torch.randn(4, 5, generator=torch.Generator().manual_seed(3)) * 3
    table.grad = sparse_gradient([1, 1, 7], 4)
    of_dense, of_rows = dense.grad.clone(), table.grad.to_dense()[[1, 7]]
    whole = torch.cat([of_dense.flatten(), of_rows.flatten()]).norm().item()
    factor = 1 if expected is None else expected / whole
    optimizer.step()
    torch.testing.assert_close(
        optimizer.state[dense]["exp_avg"], 0.1 * factor * of_dense, rtol=1e-4, atol=1e-6
    )
    row_sums = optimizer.state[table]["row_sum"][[1, 7]]
    torch.testing.assert_close(row_sums, (factor * of_rows).square().mean(dim=1), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
@pytest.mark.parametrize("warmup", [0, 1, 10])
def test_learning_rates_rise_then_follow_their_schedule(schedule, warmup):
    found = [learning_rate_factor(step, 20, 5, warmup, schedule) for step in range(101)]
    assert found[:warmup] == pytest.approx([(step + 1) / warmup for step in range(warmup)])
    assert found[warmup] == 1
    after = np.arange(101 - warmup) / (100 - warmup)
    expected = {"constant": 1 + 0 * after, "linear": 1 - after, "cosine": (1 + np.cos(np.pi * after)) / 2}
    assert found[warmup:] == pytest.approx(expected[schedule], abs=1e-12)


def test_with_restarts_every_epoch_falls_from_one_to_a_tenth():
    found = np.array([learning_rate_factor(step, 20, 5, 0, "restarts") for step in range(100)]).reshape(5, 20)
    assert (found == found[0]).all()
    assert found[0, 0] == 1
    assert (np.diff(found[0]) < 0).all()
    assert found[0, 10] == pytest.approx(0.55)
    assert 0.1 < found[0, -1] < 0.11
