"""Lambda strategies: what each makes of a vector of losses."""

import math

import pytest
import torch
from small_task import config_of

from mtl_rank.errors import ConfigError
from mtl_rank.training.weighting import build_weighting
from mtl_rank.training.weighting.loss_scale import LossScale
from mtl_rank.training.weighting.manual import Manual
from mtl_rank.training.weighting.uncertainty import Uncertainty

LOSSES = torch.tensor([0.7, 0.02, 3.0])
REGRESSION = torch.tensor([False, False, True])


def test_manual_is_the_weighted_sum():
    weighted = Manual(torch.tensor([1.0, 0.5, 2.0]))(LOSSES)
    assert weighted.total.item() == pytest.approx(0.7 + 0.5 * 0.02 + 2 * 3.0)
    assert weighted.lambdas.tolist() == [1, 0.5, 2]


def steps(module, *batches):
    return [module(torch.as_tensor(losses)) for losses in batches]


def test_loss_scale_makes_every_task_pull_alike():
    multipliers = torch.tensor([1.0, 0.5, 2.0])
    for weighted in steps(LossScale(multipliers), *[LOSSES] * 5):
        pulls = weighted.lambdas * LOSSES / multipliers
        torch.testing.assert_close(pulls, pulls[:1].expand(3), rtol=1e-4, atol=0)
        assert weighted.lambdas.sum().item() == pytest.approx(3, rel=1e-5)


@pytest.mark.parametrize("factor", [1e-3, 20.0, 1e4])
def test_the_unit_of_one_loss_changes_no_pull_between_the_others(factor):
    """As when dwell is given in milliseconds instead of seconds."""
    generator = torch.Generator().manual_seed(0)
    batches = [LOSSES * torch.rand(3, generator=generator) for _ in range(20)]
    scaled = [batch * torch.tensor([1.0, 1.0, factor]) for batch in batches]
    plain, other = steps(LossScale(torch.ones(3)), *batches), steps(LossScale(torch.ones(3)), *scaled)
    for a, b, loss in zip(plain, other, batches, strict=True):
        assert (b.lambdas[0] / b.lambdas[1]).item() == pytest.approx(
            (a.lambdas[0] / a.lambdas[1]).item(), rel=1e-4
        )
        before, after = a.lambdas * loss, b.lambdas * loss * torch.tensor([1.0, 1.0, factor])
        torch.testing.assert_close(after / after[0], before / before[0], rtol=1e-4, atol=0)


def test_loss_scale_follows_a_bias_corrected_moving_mean():
    first, second = torch.tensor([1.0, 4.0]), torch.tensor([3.0, 4.0])
    *_, last = steps(LossScale(torch.ones(2)), first, second)
    decay = LossScale.DECAY
    mean = (decay * (1 - decay) * 1 + (1 - decay) * 3) / (1 - decay**2)
    assert (last.lambdas[1] / last.lambdas[0]).item() == pytest.approx(mean / 4, rel=1e-4)


def test_loss_scale_passes_over_batches_without_a_task():
    """A batch without rows of a task has loss 0, which is no news about its scale."""
    module, other = LossScale(torch.ones(2)), LossScale(torch.ones(2))
    *_, with_gaps = steps(module, [1.0, 0.5], [1.0, 0.0], [1.0, 0.0], [1.0, 0.5])
    *_, without = steps(other, [1.0, 0.5], [1.0, 0.5])
    torch.testing.assert_close(with_gaps.lambdas, without.lambdas, rtol=1e-5, atol=0)


def test_loss_scale_before_a_task_was_ever_seen():
    weighted = LossScale(torch.ones(2))(torch.tensor([0.3, 0.0]))
    assert torch.isfinite(weighted.lambdas).all()
    assert weighted.total.item() == pytest.approx((weighted.lambdas[0] * 0.3).item())


def test_loss_scale_learns_nothing_from_validation():
    module = LossScale(torch.ones(2))
    module(torch.tensor([1.0, 2.0]))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    module.eval()(torch.tensor([100.0, 0.1]))
    assert all(torch.equal(module.state_dict()[name], value) for name, value in before.items())


def test_a_multiplier_of_zero_switches_a_task_off():
    for weighted in steps(LossScale(torch.tensor([1.0, 0.0])), [1.0, 2.0], [1.0, 2.0]):
        assert weighted.lambdas.tolist() == pytest.approx([2, 0])


@pytest.mark.parametrize("regression", [False, True])
@pytest.mark.parametrize("loss", [0.02, 0.3, 0.5, 0.7, 40.0])
def test_uncertainty_settles_where_lambda_is_one_over_twice_the_loss(loss, regression):
    """Kendall et al. 2018: exp(-s) = 1 / (2 L), and for a regression exp(-s) / 2 = 1 / (2 L)."""
    module = Uncertainty(torch.tensor([regression]))
    optimizer = torch.optim.LBFGS(module.parameters(), line_search_fn="strong_wolfe", max_iter=200)

    def closure():
        optimizer.zero_grad()
        total = module(torch.tensor([loss])).total
        total.backward()
        return total

    optimizer.step(closure)
    weighted = module(torch.tensor([loss]))
    assert weighted.lambdas.item() == pytest.approx(1 / (2 * loss), rel=1e-3)
    assert module.log_variance.item() == pytest.approx(math.log(loss if regression else 2 * loss), abs=1e-3)


def test_uncertainty_follows_its_formula_and_gradient():
    s = torch.tensor([-1.0, 0.3, 2.0], dtype=torch.float64)

    def total(values):
        module = Uncertainty(REGRESSION).double()
        with torch.no_grad():
            module.log_variance.copy_(values)
        return module, module(LOSSES.double()).total

    module, found = total(s)
    factors = (1, 1, 0.5)
    expected = sum(
        f * math.exp(-v) * loss + v / 2
        for f, v, loss in zip(factors, s.tolist(), LOSSES.tolist(), strict=True)
    )
    assert found.item() == pytest.approx(expected, rel=1e-6)
    found.backward()
    for task in range(3):
        step = torch.zeros(3, dtype=torch.float64)
        step[task] = 1e-5
        slope = (total(s + step)[1] - total(s - step)[1]).item() / 2e-5
        assert module.log_variance.grad[task].item() == pytest.approx(slope, rel=1e-5, abs=1e-7)


def test_uncertainty_of_an_absent_task_stays_where_it_is():
    module, alone = Uncertainty(torch.tensor([False, False])), Uncertainty(torch.tensor([False]))
    with torch.no_grad():
        module.log_variance.copy_(torch.tensor([0.4, -3.0]))
        alone.log_variance.fill_(0.4)
    weighted = module(torch.tensor([0.7, 0.0]))
    weighted.total.backward()
    assert weighted.total.item() == alone(torch.tensor([0.7])).total.item()
    assert module.log_variance.grad[1].item() == 0
    assert module.log_variance.grad[0].item() != 0


def test_methods_are_built_from_the_configuration():
    manual = build_weighting(config_of(weighting={"method": "manual", "lambdas": {"cvr": 0.25}}), 9)
    assert manual(LOSSES).lambdas.tolist() == [1, 0.25, 1]
    scaled = build_weighting(config_of(weighting={"method": "loss_scale", "lambdas": {"cvr": 0.25}}), 9)
    pulls = scaled(LOSSES).lambdas * LOSSES
    assert pulls.tolist() == pytest.approx((pulls[0] * torch.tensor([1, 0.25, 1])).tolist(), rel=1e-5)
    learned = build_weighting(config_of(weighting={"method": "uncertainty"}), 9)
    assert learned(LOSSES).lambdas.tolist() == [1, 1, 0.5]


def test_methods_that_do_not_exist_or_would_ignore_lambdas():
    with pytest.raises(ConfigError, match=r"weighting\.method: .*'uncertanty'; did you mean 'uncertainty'\?"):
        build_weighting(config_of(weighting={"method": "uncertanty"}), 9)
    for method in ("uncertainty", "gradnorm", "famo", "dwa", "rlw"):
        with pytest.raises(ConfigError, match=rf"weighting\.lambdas: {method} finds its lambdas itself"):
            build_weighting(config_of(weighting={"method": method, "lambdas": {"ctr": 2.0}}), 9)
    weighs = config_of(weighting={"method": "famo"}, tasks={"ctr": {"label": "clicked", "weight": 2}})
    with pytest.raises(ConfigError, match=r"tasks\.ctr\.weight: famo finds"):
        build_weighting(weighs, 9)
    scheduled = {"schedule": {"ctr": [[0, 0], [1, 1]]}}
    with pytest.raises(ConfigError, match=r"weighting\.schedule: loss_scale would ignore it"):
        build_weighting(config_of(weighting={"method": "loss_scale", **scheduled}), 9)


def test_a_schedule_joins_its_points_by_lines():
    points = {"cvr": [[0.5, 0.0], [1.0, 1.0], [3.0, 0.2]]}
    module = build_weighting(config_of(weighting={"lambdas": {"cvr": 2.0}, "schedule": points}), 4)
    found = [module(LOSSES) for _ in range(15)]
    expected = [2 * f for f in (0, 0, 0, 0.5, 1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.2, 0.2)]
    assert [weighted.lambdas[1].item() for weighted in found] == pytest.approx(expected, abs=1e-6)
    assert {weighted.lambdas[0].item() for weighted in found} == {1.0}
    assert found[3].total.item() == pytest.approx(0.7 + 0.02 + 3.0)
