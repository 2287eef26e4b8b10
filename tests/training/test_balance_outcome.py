"""Two tasks that want opposite things of the same parameters, the loss of one a thousand times the other's."""

import numpy as np
import pytest
import torch

from mtl_rank.config import Task
from mtl_rank.training.losses import TaskLosses
from mtl_rank.training.weighting import METHODS
from mtl_rank.training.weighting.methods import Tasks

UNITS = torch.tensor([1.0, 1000.0])
INPUTS, ROWS, AVERAGED = 8, 128, 200


class Shared(torch.nn.Module):
    """One output for both tasks: nothing that one of them could have for itself."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(INPUTS, 1, bias=False)
        torch.nn.init.zeros_(self.layer.weight)

    def forward(self, x):
        return self.layer(x).expand(-1, 2)


def explained(method, seed):
    """R^2 of both tasks after training: y_t = w_t x + noise, each explained to 5/9 by its own w_t, w_1.w_2 = 0.6.

    The direction half way between them explains 4/9 of each.
    """
    rng = np.random.default_rng(seed)
    directions, _ = np.linalg.qr(rng.normal(size=(INPUTS, 2)))
    w = torch.tensor(directions @ np.array([[1, 0.6], [0, 0.8]]), dtype=torch.float32) * np.sqrt(1.25)
    torch.manual_seed(seed)
    model = Shared()
    losses = TaskLosses([Task(label="a", kind="regression"), Task(label="b", kind="regression")])
    weighting = METHODS[method].build(
        Tasks(torch.ones(2), torch.tensor([True, True]), steps_per_epoch=100, seed=seed)
    )
    # Plain steps: what the weighting makes of the losses decides, not Adam's own scaling.
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    learned = list(weighting.parameters())
    # A learned log variance has log(1000) to go. At the 0.01 of a training it would arrive after 8,000 steps.
    own = torch.optim.AdamW(learned, lr=0.1, weight_decay=0.0) if learned else None
    average = torch.zeros(INPUTS)
    steps = 1500
    for step in range(steps):
        x = torch.randn(ROWS, INPUTS)
        y = x @ w + torch.randn(ROWS, 2)
        of_tasks = losses(model(x), y) * UNITS
        gramian = None
        if weighting.needs_gramian:
            rows = [torch.autograd.grad(one, model.layer.weight, retain_graph=True)[0] for one in of_tasks]
            matrix = torch.stack([row.flatten() for row in rows])
            gramian = matrix @ matrix.T
        weighted = weighting(of_tasks, gramian)
        for one in (optimizer, own):
            if one is not None:
                one.zero_grad()
        weighted.total.backward()
        # The same step size for all: what is compared is the direction.
        model.layer.weight.grad /= weighted.lambdas.abs().dot(UNITS)
        for one in (optimizer, own):
            if one is not None:
                one.step()
        if step >= steps - AVERAGED:
            average += model.layer.weight.detach()[0] / AVERAGED
    x = torch.randn(20_000, INPUTS)
    y = x @ w + torch.randn(20_000, 2)
    return (1 - ((average @ x.T)[:, None] - y).pow(2).mean(dim=0) / y.var(dim=0)).tolist()


@pytest.mark.parametrize("seed", range(3))
def test_equal_lambdas_starve_the_task_in_small_units(seed):
    small, large = explained("manual", seed)
    assert large > 0.52
    assert small < 0.15


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("method", ["loss_scale", "uncertainty", "famo", "gradnorm"])
def test_lambdas_that_follow_the_scale_serve_both(method, seed):
    small, large = explained(method, seed)
    assert min(small, large) > 0.3
