"""What is searched, and the command line that a point becomes."""

import shlex

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtl_rank.config import parse_config, parse_settings
from mtl_rank.errors import ConfigError
from mtl_rank.tuning.front import parse_preferences
from mtl_rank.tuning.space import command, configured, parse_search

PROJECT = """
feature_service: s
examples: e.parquet
split: {valid: 2026-03-01, test: 2026-04-01}
tasks: {ctr: {label: a}, cvr: {label: b, given: ctr, weight: 3}, dwell: {label: c, kind: regression}}
weighting: {method: manual, lambdas: {ctr: 0.5}}
"""
TASKS = ("ctr", "cvr", "dwell")
SEARCH = [
    "fit.lr=0.0005..0.01",
    "model.experts=2..8",
    "model.expert_layers=[64, 32]|[128]",
    "fit.schedule=linear|cosine",
]


def base():
    return parse_config(PROJECT, "mtlrank.yaml")


def drawn(space, seed):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return space.suggest(study.ask())


@settings(max_examples=20)
@given(st.integers(0, 10_000))
def test_a_point_is_a_configuration_with_lambdas_of_sum_t(seed):
    space = parse_search(TASKS, SEARCH)
    values = drawn(space, seed)
    lambdas, settings = space.lambdas(values), space.settings(values)
    assert sum(lambdas.values()) == pytest.approx(3, rel=1e-3)
    assert lambdas["cvr"] / lambdas["ctr"] == pytest.approx(values["lambda/cvr"], rel=1e-3)
    config = configured(base(), lambdas, settings)
    assert config.weighting.method == "manual"
    assert config.lambdas() == lambdas
    assert 0.0005 <= config.fit.lr <= 0.01
    assert config.model.experts in range(2, 9)
    assert config.model.expert_layers in ((64, 32), (128,))


@settings(max_examples=20)
@given(st.integers(0, 10_000))
def test_the_command_of_a_point_trains_that_very_configuration(seed):
    """Read back as the command line reads it: options, then one YAML value per --set."""
    space = parse_search(TASKS, SEARCH)
    values = drawn(space, seed)
    lambdas, settings = space.lambdas(values), space.settings(values)
    overrides = {
        "fit.epochs": 4,
        "model.tower_layers": [8] * 40,
        "user_key": "it's",
        "weighting.method": "dwa",
    }
    started = parse_config(PROJECT, "mtlrank.yaml", {**overrides, "weighting.method": "manual"})

    words = shlex.split(command(TASKS, overrides, lambdas, settings))
    assert words[:4] == ["mtlrank", "train", "--tasks", "ctr,cvr,dwell"]
    found = {"weighting.method": words[5]}
    for option, value in zip(words[6::2], words[7::2], strict=True):
        if option == "--lambda":
            task, factor = value.split("=")
            found[f"weighting.lambdas.{task}"] = float(factor)
        else:
            assert option == "--set"
            found |= parse_settings([value])
    again = parse_config(PROJECT, "mtlrank.yaml", found).with_tasks(TASKS)
    assert again == configured(started, lambdas, settings)


def test_a_range_is_written_as_numbers_are():
    space = parse_search(TASKS, ["fit.lr=1e-4..1e-2"])
    for seed in range(20):
        config = configured(base(), {}, space.settings(drawn(space, seed)))
        assert 1e-4 <= config.fit.lr <= 1e-2


def test_equal_lambdas_and_those_of_the_project_are_tried_first():
    space = parse_search(TASKS, [])
    starts = space.starts(base().lambdas())
    assert [space.lambdas(start) for start in starts] == [
        {"ctr": 1, "cvr": 1, "dwell": 1},
        {"ctr": pytest.approx(1 / 3, rel=1e-3), "cvr": 2, "dwell": pytest.approx(2 / 3, rel=1e-3)},
    ]
    assert space.starts(dict.fromkeys(TASKS, 4.0)) == [starts[0]]
    assert space.starts({"ctr": 0.0, "cvr": 1.0, "dwell": 1.0}) == [starts[0]]
    assert space.starts({"ctr": 1.0, "cvr": 1e6, "dwell": 1.0}) == [starts[0]]


WRONG = [
    "fit.lr",
    "lr=1..2",
    "fit.monitor=valid/ne|valid/ctr/auc",
    "weighting.method=dwa|rlw",
    "fit.lr=2..1",
    "fit.lr=a..b",
    "fit.lr=1..2..3",
    "model.experts=2",
    "model.experts=2|",
]


@pytest.mark.parametrize("pair", WRONG)
def test_what_cannot_be_searched_is_refused(pair):
    with pytest.raises(ConfigError, match=r"--search .*such as") as caught:
        parse_search(TASKS, [pair])
    assert pair in str(caught.value)


def test_one_task_needs_something_else_to_search():
    with pytest.raises(ConfigError, match="one task has no lambda to search"):
        parse_search(["ctr"], [])
    assert parse_search(["ctr"], ["fit.lr=0.001..0.01"]).lambdas({}) == {"ctr": 1}


def test_a_value_that_its_key_does_not_take_is_named():
    space = parse_search(TASKS, ["model.experts=2|many"])
    with pytest.raises(ConfigError, match=r"model\.experts: .*'many'"):
        configured(
            base(),
            space.lambdas(dict.fromkeys(["lambda/cvr", "lambda/dwell"], 1.0)),
            {"model.experts": "many"},
        )


def test_preferences_weigh_every_task():
    assert parse_preferences(TASKS, ["ctr=2", "dwell=0"]) == {"ctr": 2, "cvr": 1, "dwell": 0}
    for pairs, message in (
        (["ctrr=2"], "--prefer ctrr=2: there is no task 'ctrr'; did you mean 'ctr'"),
        (["ctr"], "--prefer ctr: write task=weight"),
        (["ctr=-1"], "--prefer ctr=-1: write task=weight"),
        (["ctr=nan"], "--prefer ctr=nan: write task=weight"),
        (["ctr=0", "cvr=0", "dwell=0"], "--prefer: every weight is 0"),
    ):
        with pytest.raises(ConfigError) as caught:
            parse_preferences(TASKS, pairs)
        assert str(caught.value).startswith(message)
