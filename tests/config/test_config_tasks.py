"""Tasks, their classes, losses and chains: what fits together comes back, what does not is refused with the reason."""

import pytest
import yaml
from project_text import complaint, config_with

from mtl_rank.config import parse_config
from mtl_rank.errors import ConfigError

CLASSES = [
    (
        {"tasks": {"stars": {"label": "a", "kind": "ordinal"}}},
        "tasks.stars: an ordinal task needs its classes, at least 3",
    ),
    ({"tasks": {"s": {"label": "a", "kind": "multiclass", "classes": [0, 1]}}}, "two are a binary task"),
    ({"tasks": {"s": {"label": "a", "kind": "multiclass", "classes": [0, 1, 1]}}}, "different numbers"),
    ({"tasks": {"s": {"label": "a", "kind": "multiclass", "classes": [0, 1, "b"]}}}, "different numbers"),
    (
        {"tasks": {"s": {"label": "a", "kind": "ordinal", "classes": [1, 3, 2]}}},
        "the classes of an ordinal task are numbers that rise (or set kind: multiclass)",
    ),
    (
        {"tasks": {"s": {"label": "a", "kind": "ordinal", "classes": ["low", "mid", "top"]}}},
        "the classes of an ordinal task are numbers that rise",
    ),
    (
        {"tasks": {"s": {"label": "a", "classes": [1, 2, 3]}}},
        "a binary task has no classes (or set kind: multiclass or ordinal)",
    ),
    (
        {"tasks": {"s": {"label": "a", "kind": "multiclass", "classes": [1, 2, 3], "loss": "bce"}}},
        "a multiclass task takes loss cross_entropy, not bce (or set kind: binary)",
    ),
    (
        {"tasks": {"s": {"label": "a", "loss": "cumulative"}}},
        "a binary task takes loss bce, weighted_bce or focal, not cumulative (or set kind: ordinal)",
    ),
    (
        {
            "tasks": {
                "s": {"label": "a", "kind": "multiclass", "classes": [1, 2, 3]},
                "t": {"label": "b", "given": "s"},
            }
        },
        "tasks.t.given: 's' is not a binary task",
    ),
    (
        {
            "tasks": {"s": {"label": "a", "kind": "ordinal", "classes": [1, 2, 3]}},
            "calibration": {"tasks": {"s": "platt"}},
        },
        "calibration.tasks.s: only binary tasks are calibrated, this one is ordinal",
    ),
    (
        {
            "tasks": {
                "s": {"label": "a", "kind": "multiclass", "classes": [1, 2, 3]},
                "s_2": {"label": "b"},
            }
        },
        "task s_2 and class 2 of s would both be called s_2",
    ),
]


@pytest.mark.parametrize(("sections", "message"), CLASSES, ids=str)
def test_classes_that_cannot_be_are_refused_with_the_reason(sections, message):
    assert message in complaint(**sections, weighting={})


TASKS = [
    ({"ctr": {"label": "a", "loss": "mse"}}, "tasks.ctr: a binary task takes loss bce"),
    (
        {"ctr": {"label": "a", "transform": "log1p"}},
        "tasks.ctr: a binary task takes no transform",
    ),
    ({"d": {"label": "a", "kind": "regression", "loss": "bce"}}, "tasks.d: a regression task takes loss mse"),
    (
        {"ctr": {"label": "a", "inverse_propensity": 0.1}},
        "tasks.ctr: inverse_propensity is for a task with `given`",
    ),
    (
        {
            "ctr": {"label": "a"},
            "cvr": {
                "label": "b",
                "given": "ctr",
                "inverse_propensity": 0.1,
                "loss": {"name": "bce", "smoothing": 0.1},
            },
        },
        "tasks.cvr: with inverse_propensity the loss is that of every row",
    ),
    ({"ctr": {"label": "a", "loss": "focl"}}, "tasks.ctr.loss.name: "),
    ({"ctr": {"label": "a", "loss": {"name": "focal", "gamma": -1}}}, "tasks.ctr.loss.gamma: "),
    ({"ctr": {"label": "a", "loss": {"name": "focal", "alpha": 1}}}, "tasks.ctr.loss.alpha: "),
    (
        {"ctr": {"label": "a", "loss": {"name": "focal", "gama": 1}}},
        "unknown key 'tasks.ctr.loss.gama'; did you mean 'gamma'?",
    ),
    (
        {"ctr": {"label": "a", "loss": {"name": "bce", "gamma": 1}}},
        "tasks.ctr.loss: bce has no option 'gamma'",
    ),
    ({"ctr": {"label": "a", "loss": "weighted_bce"}}, "tasks.ctr.loss: weighted_bce takes either w1 and w0"),
    (
        {"ctr": {"label": "a", "loss": {"name": "weighted_bce", "w1": 2, "balanced": True}}},
        "tasks.ctr.loss: weighted_bce takes either w1 and w0",
    ),
    ({"ctr": {"label": "a", "loss": {"name": "weighted_bce", "w0": 0}}}, "tasks.ctr.loss.w0: "),
    (
        {"d": {"label": "a", "kind": "regression", "loss": "lognormal"}},
        "tasks.d: loss lognormal is about the logarithm of the label: set transform: log1p",
    ),
    (
        {"ctr": {"label": "a"}, "cvr": {"label": "b", "given": "crt"}},
        "tasks.cvr.given: there is no task 'crt'",
    ),
    ({"ctr": {"label": "a", "given": "ctr"}}, "tasks.ctr.given: a cycle, ctr given ctr"),
    (
        {"a": {"label": "x", "given": "b"}, "b": {"label": "y", "given": "a"}},
        "tasks.a.given: a cycle, a given b given a",
    ),
    (
        {
            "c": {"label": "z", "given": "a"},
            "a": {"label": "x", "given": "b"},
            "b": {"label": "y", "given": "a"},
        },
        "tasks.c.given: a cycle, c given a given b given a",
    ),
    (
        {"d": {"label": "a", "kind": "regression"}, "cvr": {"label": "b", "given": "d"}},
        "tasks.cvr.given: 'd' is not a binary task",
    ),
    (
        {"ctr": {"label": "a"}, "cvr": {"label": "b", "given": "ctr"}, "ctcvr": {"label": "c"}},
        "tasks: task ctcvr and ctr * cvr would both be called ctcvr",
    ),
]


@pytest.mark.parametrize(("tasks", "message"), TASKS, ids=str)
def test_tasks_that_do_not_fit_together(tasks, message):
    assert complaint(tasks=tasks, weighting=None).startswith(message)


def test_products_along_each_chain():
    assert config_with().products() == {
        "ctcvr": ("ctr", "cvr"),
        "ctr_dwell": ("ctr", "dwell"),
        "ctcvr_refund": ("ctr", "cvr", "refund"),
    }
    plain = config_with(
        tasks={"like": {"label": "a"}, "share": {"label": "b", "given": "like"}}, weighting=None
    )
    assert plain.products() == {"like_share": ("like", "share")}
    assert config_with(tasks={"like": {"label": "a"}}, weighting=None).products() == {}


def test_a_subset_of_the_tasks_in_the_order_asked_for():
    config = config_with()
    few = config.with_tasks(["cvr", "ctr"])
    assert list(few.tasks) == ["cvr", "ctr"]
    assert few.lambdas() == {"cvr": 2.0, "ctr": 1.0}
    assert few.products() == {"ctcvr": ("ctr", "cvr")}
    assert config.with_tasks(["ctr"]).weighting.lambdas == {}
    scheduled = config_with(weighting={"schedule": {"cvr": [[0, 0], [1, 1]], "dwell": [[2, 0.5]]}})
    fewer = scheduled.with_tasks(["ctr", "cvr"])
    assert fewer.weighting.schedule == {"cvr": ((0, 0), (1, 1))}
    assert parse_config(fewer.to_yaml(), "config.yaml") == fewer
    others = {"context", "split", "truth", "model", "fit", "examples", "feature_service", "feature_repo"}
    assert few.model_dump(include=others) == config.model_dump(include=others)
    assert config.with_tasks(list(config.tasks)) == config


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["ctrr"], "--tasks: there is no task 'ctrr'; did you mean 'ctr'?"),
        (["cvr"], "--tasks: cvr is given ctr; add it: --tasks ctr,cvr"),
        (["ctr", "refund"], "--tasks: refund is given cvr"),
        (["ctr", "ctr"], "--tasks: name each task once"),
        ([], "--tasks: name each task once, at least one"),
    ],
)
def test_subsets_that_do_not_work(names, message):
    with pytest.raises(ConfigError) as caught:
        config_with().with_tasks(names)
    assert str(caught.value).startswith(message)


LOSSES = [
    "bce",
    "focal",
    {"name": "focal", "gamma": 1.5},
    {"name": "weighted_bce", "balanced": True, "smoothing": 0.1},
    {"name": "weighted_bce", "w1": 4},
]


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_a_loss_is_a_name_or_a_name_with_options_and_reads_back(loss):
    config = config_with(tasks={"ctr": {"label": "a", "loss": loss}}, weighting=None)
    written = config.to_yaml()
    assert parse_config(written, "config.yaml") == config
    found = yaml.safe_load(written)["tasks"]["ctr"]["loss"]
    assert found["name"] == (loss if isinstance(loss, str) else loss["name"])
    if "focal" in str(loss):
        # Its defaults are written out, options of other losses are not.
        assert set(found) == {"name", "alpha", "gamma", "smoothing"}


@pytest.mark.parametrize(
    "loss", ["focal", {"name": "weighted_bce", "balanced": True}, {"name": "bce", "smoothing": 0.1}]
)
def test_losses_whose_predictions_sampling_would_spoil_are_refused(loss):
    tasks = {"ctr": {"label": "a", "loss": loss}, "like": {"label": "b", "loss": loss}}
    fit = {"negatives": {"task": "ctr", "keep": 0.1}}
    assert "fit.negatives.task: predictions of ctr" in complaint(tasks=tasks, weighting=None, fit=fit)
    config_with(tasks={**tasks, "ctr": {"label": "a"}}, weighting=None, fit=fit)
