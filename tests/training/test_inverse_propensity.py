"""A task that is observed on chosen rows only, trained so as to be right on every row."""

import numpy as np
import pytest
import torch

from mtl_rank.config import Task
from mtl_rank.data.labels import Target
from mtl_rank.training.losses import TaskLosses

NAN = float("nan")
CTR = Task(label="clicked")


def target(name, given):
    return Target(name, name, "binary", "none", given, 0.5, 1.0, 100, 50)


def losses_of(least, **more):
    tasks = [CTR, Task(label="bought", given="ctr", inverse_propensity=least, **more)]
    return TaskLosses(tasks, targets=[target("ctr", None), target("cvr", 0)])


def test_each_row_counts_by_the_inverse_of_the_predicted_propensity():
    logits = torch.tensor([[0.0, 1.0], [-2.0, 0.5], [-9.0, 2.0], [3.0, -1.0]], dtype=torch.float64)
    labels = torch.tensor([[1.0, 1.0], [1.0, 0.0], [1.0, 1.0], [0.0, NAN]], dtype=torch.float64)
    found = losses_of(0.05)(logits, labels)
    p = 1 / (1 + np.exp(-logits.numpy()))
    weights = 1 / np.maximum(p[:3, 0], 0.05)
    y = labels.numpy()[:3, 1]
    each = -(y * np.log(p[:3, 1]) + (1 - y) * np.log(1 - p[:3, 1]))
    assert weights[2] == 20
    assert found[1].item() == pytest.approx((weights * each).sum() / weights.sum())
    plain = TaskLosses([CTR, Task(label="bought", given="ctr")])(logits, labels)
    assert found[0].item() == plain[0].item()


def test_over_the_batch_it_is_the_papers_mean_over_every_impression():
    """ESCM2-IPS (Wang et al. 2022): the sum of e / p over the clicked, by the number of impressions."""
    logits = torch.tensor([[0.0, 1.0], [-2.0, 0.5], [3.0, -1.0]], dtype=torch.float64)
    labels = torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, NAN]], dtype=torch.float64)
    found = losses_of(0.05, mean_over="batch")(logits, labels)
    p = 1 / (1 + np.exp(-logits.numpy()))
    each = -np.log([p[0, 1], 1 - p[1, 1]])
    assert found[1].item() == pytest.approx((each / p[:2, 0]).sum() / 3)


def test_the_propensity_is_no_way_for_the_loss_to_get_smaller():
    logits = torch.randn(20, 2, requires_grad=True)
    labels = torch.ones(20, 2)
    labels[::3, 1] = 0
    losses_of(0.01)(logits, labels)[1].backward()
    assert logits.grad[:, 0].tolist() == [0] * 20
    assert (logits.grad[:, 1] != 0).all()


@pytest.mark.parametrize(("least", "expected"), [(0.01, 0.5), (1.0, None)])
def test_the_best_constant_is_the_rate_among_all_rows(least, expected):
    """Half of the rows: clicked by 50 %, bought by 80 %; the others 5 % and 20 %. All 50 %, clicked ones 75 %."""
    ctr, cvr = np.array([0.5, 0.05]), np.array([0.8, 0.2])
    rows = [(group, bought) for group in range(2) for bought in (1.0, 0.0)]
    frequency = [0.5 * ctr[g] * (cvr[g] if bought else 1 - cvr[g]) for g, bought in rows]
    among_clicked = 0.5 * (ctr * cvr).sum() / (0.5 * ctr.sum())
    rate = expected or among_clicked
    z = torch.tensor(np.log(rate / (1 - rate)), requires_grad=True)
    known = torch.tensor([np.log(ctr[g] / (1 - ctr[g])) for g, _ in rows])
    labels = torch.tensor([[1.0, bought] for _, bought in rows], dtype=torch.float64)
    logits = torch.stack([known, z.expand(4)], dim=1)
    losses_of(least)(logits, labels, torch.tensor(frequency))[1].backward()
    assert among_clicked == pytest.approx(0.745, abs=0.001)
    assert z.grad.item() == pytest.approx(0, abs=1e-12)


def test_along_a_chain_it_is_the_product_of_the_propensities():
    tasks = [CTR, Task(label="b", given="ctr"), Task(label="c", given="cvr", inverse_propensity=0.001)]
    losses = TaskLosses(tasks, targets=[target("ctr", None), target("cvr", 0), target("refund", 1)])
    logits = torch.tensor([[0.0, 0.0, 1.0], [2.0, -1.0, -1.0]], dtype=torch.float64)
    labels = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]], dtype=torch.float64)
    p = torch.sigmoid(logits)
    weights = 1 / (p[:, 0] * p[:, 1])
    each = -torch.log(p[:, 2])
    assert losses(logits, labels)[2].item() == pytest.approx(((weights * each).sum() / weights.sum()).item())


def test_without_rows_it_is_nothing():
    logits = torch.randn(3, 2, requires_grad=True)
    found = losses_of(0.1)(logits, torch.tensor([[0.0, NAN]] * 3))
    found.sum().backward()
    assert found[1].item() == 0
    assert logits.grad[:, 1].tolist() == [0] * 3
