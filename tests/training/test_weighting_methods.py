"""What all weightings have in common, and the lambdas of those that are no single formula."""

import math
from importlib.util import find_spec

import pytest
import torch

from mtl_rank.training.weighting import METHODS
from mtl_rank.training.weighting.aggregation import AGGREGATORS
from mtl_rank.training.weighting.dwa import DynamicWeightAverage
from mtl_rank.training.weighting.famo import Famo
from mtl_rank.training.weighting.gradnorm import GradNorm
from mtl_rank.training.weighting.methods import Tasks
from mtl_rank.training.weighting.rlw import RandomLossWeighting

# Those of the extra `convex` are tested where it is installed.
NAMES = sorted(
    name for name in METHODS if name not in AGGREGATORS or all(map(find_spec, AGGREGATORS[name].needs))
)
STEPS = 5


def build(name, lambdas=(1.0, 1.0, 1.0), regression=(False, False, True)):
    return METHODS[name].build(
        Tasks(
            torch.tensor(lambdas),
            torch.tensor(regression),
            steps_per_epoch=STEPS,
            seed=3,
            schedule={0: ((0.0, 0.1), (2.0, 1.0))} if name == "manual" else {},
        )
    )


def batches(count, seed=0):
    """(losses, gradients (T, n)) of as many steps: losses that fall, each at its own speed."""
    generator = torch.Generator().manual_seed(seed)
    speeds = torch.tensor([0.9, 0.99, 0.95])
    for step in range(count):
        noise = torch.rand(3, generator=generator)
        yield (
            torch.tensor([0.7, 0.02, 3.0]) * speeds**step * (0.9 + 0.2 * noise),
            torch.randn(3, 6, generator=generator) * torch.tensor([[1.0], [0.3], [2.0]]),
        )


class Training:
    """A weighting with an optimizer for its parameters, as in training."""

    def __init__(self, module):
        self.module = module
        parameters = list(module.parameters())
        self.optimizer = torch.optim.AdamW(parameters, lr=1e-2, weight_decay=0.0) if parameters else None

    def step(self, losses, gradients):
        weighted = self.module(losses, gradients @ gradients.T)
        if self.optimizer is not None:
            self.optimizer.zero_grad()
            weighted.total.backward()
            self.optimizer.step()
        return weighted.lambdas.clone()

    def run(self, steps, scale=None):
        scale = torch.ones(3) if scale is None else scale
        return [self.step(losses * scale, gradients * scale[:, None]) for losses, gradients in steps]


@pytest.mark.parametrize("name", NAMES)
def test_the_total_pulls_on_each_loss_by_its_lambda(name):
    """d total / d L_t = lambda_t, whatever the method; lambdas carry no gradient of their own."""
    module = build(name)
    for values, gradients in batches(3):
        losses = values.clone().requires_grad_()
        weighted = module(losses, gradients @ gradients.T)
        (gradient,) = torch.autograd.grad(weighted.total, losses)
        torch.testing.assert_close(gradient, weighted.lambdas)
        assert not weighted.lambdas.requires_grad
        assert weighted.total.shape == ()


@pytest.mark.parametrize("name", NAMES)
def test_without_conflict_at_equal_losses_and_norms_every_lambda_is_one(name):
    """Learning rates and penalties mean the same under every method."""
    if name in ("rlw", "manual"):
        pytest.skip("random, or on a schedule here")
    module = build(name, regression=(False, False, False))
    lambdas = module(torch.full((3,), 0.4), torch.eye(3)).lambdas
    torch.testing.assert_close(lambdas, torch.ones(3))


# Whether the pull of a task, lambda_t L_t or lambda_t |g_t|, stays what it was when its loss is in other units.
PULL_STAYS = ("loss_scale", "famo", "imtl_g")
LAMBDA_STAYS = ("manual", "dwa", "rlw")


@pytest.mark.parametrize("factor", [1e-3, 50.0])
@pytest.mark.parametrize("name", PULL_STAYS + LAMBDA_STAYS)
def test_another_unit_of_one_loss_changes_what_it_should_and_nothing_else(name, factor):
    scale = torch.tensor([1.0, factor, 1.0])
    plain = Training(build(name)).run(batches(40))
    other = Training(build(name)).run(batches(40), scale)
    for before, after in zip(plain, other, strict=True):
        if name in LAMBDA_STAYS:
            torch.testing.assert_close(after, before)
        else:
            pull = after * scale
            torch.testing.assert_close(pull / pull[0], before / before[0], rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_task_without_rows_takes_no_part(name):
    """Its loss and gradient are 0: nothing becomes NaN, and the others go on as if it were not there."""
    training = Training(build(name))
    for i, (losses, gradients) in enumerate(batches(12)):
        here = torch.tensor([1.0, float(i % 3 == 0), 1.0])
        lambdas = training.step(losses * here, gradients * here[:, None])
        assert lambdas.isfinite().all()
        assert (lambdas * here).abs().sum() > 0
    nothing = training.step(torch.zeros(3), torch.zeros(3, 6))
    assert nothing.isfinite().all()
    assert all(p.isfinite().all() for p in training.module.parameters())
    for losses, gradients in batches(2):
        assert training.step(losses, gradients).isfinite().all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("at", [1, STEPS, 2 * STEPS + 3])
def test_state_in_a_checkpoint_continues_to_the_last_bit(name, at):
    steps = list(batches(4 * STEPS))
    whole = Training(build(name)).run(steps)
    first = Training(build(name))
    first.run(steps[:at])
    second = Training(build(name))
    second.module.load_state_dict(first.module.state_dict())
    if first.optimizer is not None:
        second.optimizer.load_state_dict(first.optimizer.state_dict())
    torch.rand(5)
    for expected, found in zip(whole[at:], second.run(steps[at:]), strict=True):
        assert torch.equal(expected, found)


@pytest.mark.parametrize("name", NAMES)
def test_a_weighting_draws_no_random_number_of_the_training(name):
    """Two processes of one training have drawn differently for dropout: their lambdas must still agree."""
    torch.manual_seed(0)
    before = torch.get_rng_state()
    module = build(name)
    for losses, gradients in batches(3):
        module(losses, gradients @ gradients.T)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", [name for name in NAMES if METHODS[name].takes_lambdas])
def test_a_lambda_of_zero_switches_a_task_off(name):
    module = build(name, lambdas=(1.0, 0.0, 1.0))
    for losses, gradients in batches(4):
        lambdas = module(losses, gradients @ gradients.T).lambdas
        assert lambdas[1].item() == 0
        assert lambdas[[0, 2]].abs().sum() > 0


def test_dwa_follows_the_mean_losses_of_the_last_two_epochs():
    module = DynamicWeightAverage(2, steps_per_epoch=2)
    epochs = [[(1.0, 2.0), (0.8, 0.0)], [(0.5, 2.0), (0.4, 1.0)], [(0.4, 1.0), (0.3, 1.0)], [(9.0, 9.0)]]
    found = [[module(torch.tensor(losses)).lambdas for losses in epoch] for epoch in epochs]
    for epoch in found[:2]:
        for lambdas in epoch:
            assert lambdas.tolist() == [1, 1]
    # A batch without rows of a task (loss 0) is no batch for it.
    for lambdas, rates in ((found[2][1], (0.45 / 0.9, 1.5 / 2.0)), (found[3][0], (0.35 / 0.45, 1.0 / 1.5))):
        exponentials = [math.exp(rate / 2) for rate in rates]
        expected = [2 * e / sum(exponentials) for e in exponentials]
        assert lambdas.tolist() == pytest.approx(expected, rel=1e-5)


def test_rlw_draws_by_seed_and_step_with_mean_one():
    losses = torch.ones(3)
    drawn = torch.stack([m(losses).lambdas for m in [RandomLossWeighting(3, seed=1)] for _ in range(4000)])
    assert drawn.sum(dim=1).tolist() == pytest.approx([3.0] * 4000, rel=1e-5)
    assert drawn.mean(dim=0).tolist() == pytest.approx([1.0] * 3, abs=0.05)
    expected = torch.stack([torch.softmax(torch.randn(3), 0) * 3 for _ in range(4000)]).std(dim=0).mean()
    assert drawn.std(dim=0).tolist() == pytest.approx([expected.item()] * 3, rel=0.1)
    assert len({tuple(row) for row in drawn.tolist()}) == 4000
    other = RandomLossWeighting(3, seed=2)
    assert not torch.equal(other(losses).lambdas, drawn[0])


def test_gradnorm_brings_norms_to_the_speed_of_learning():
    """At fixed losses and norms: lambda_t |g_t| / mean -> r_t^1.5."""
    training = Training(GradNorm(3))
    norms = torch.tensor([1.0, 5.0, 0.2])
    training.step(torch.tensor([1.0, 1.0, 1.0]), torch.diag(norms))
    losses = torch.tensor([0.5, 0.9, 0.7])
    for _ in range(3000):
        lambdas = training.step(losses, torch.diag(norms))
    pulls = lambdas * norms
    expected = (losses / losses.mean()) ** 1.5
    assert (pulls / pulls.mean()).tolist() == pytest.approx((expected / expected.mean()).tolist(), rel=0.1)
    assert lambdas.sum().item() == pytest.approx(3, rel=1e-5)


def test_gradnorm_teaches_the_network_nothing_but_the_weighted_losses():
    module = GradNorm(2)
    losses = torch.tensor([1.0, 2.0], requires_grad=True)
    module(losses, torch.tensor([[4.0, 0.0], [0.0, 1.0]])).total.backward()
    assert losses.grad.tolist() == [1, 1]
    # |2 - 1.5| + |1 - 1.5|: the larger norm's lambda falls.
    assert module.logits.grad[0] > 0 > module.logits.grad[1]


def test_famo_gives_less_to_the_task_that_gains_more():
    training = Training(Famo(2))
    for step in range(200):
        lambdas = training.step(torch.tensor([0.9**step, 0.999**step]), torch.zeros(2, 2))
    z = torch.softmax(training.module.xi, 0)
    assert z[1] > 0.6
    shares = lambdas * torch.tensor([0.9**199, 0.999**199])
    assert shares[1] > shares[0]


def test_famo_follows_its_formula():
    module = Famo(2)
    with torch.no_grad():
        module.xi.copy_(torch.tensor([0.5, -0.2]))
    first, second = torch.tensor([1.0, 4.0]), torch.tensor([0.5, 3.8])
    module(first)
    weighted = module(second)
    z = torch.softmax(torch.tensor([0.5, -0.2]), 0)
    expected = 2 * (z / second) / (z / second).sum()
    torch.testing.assert_close(weighted.lambdas, expected)
    weighted.total.backward()
    gain = torch.log(first) - torch.log(second)
    jacobian = torch.diag(z) - torch.outer(z, z)
    torch.testing.assert_close(module.xi.grad, jacobian @ gain + Famo.DECAY * torch.tensor([0.5, -0.2]))
