"""mtlrank.yaml and --set: what they hold comes back, the rest has defaults, and nothing changes it later."""

from datetime import UTC, datetime

import pytest
import yaml
from project_text import PROJECT, complaint, config_with

from mtl_rank.config import (
    ContextOptions,
    Fit,
    InputOptions,
    Model,
    ProjectConfig,
    Split,
    Task,
    load_config,
    parse_config,
    parse_settings,
)
from mtl_rank.errors import ConfigError


def test_a_file_is_read_and_the_rest_has_defaults(tmp_path):
    (tmp_path / "mtlrank.yaml").write_text(PROJECT)
    config = load_config(tmp_path)
    assert config.tasks["cvr"] == Task(label="purchased", given="ctr")
    assert config.split.valid == datetime(2026, 3, 25, tzinfo=UTC)
    assert config.split.test == datetime(2026, 3, 28, 10, tzinfo=UTC)
    assert config.context["position"] == ContextOptions(role="categorical", at_scoring=1)
    assert config.model == Model(name="mmoe", expert_layers=(256, 128), dropout=0.1)
    assert config.fit == Fit(batch_size=4096, epochs=3, precision="fp32")
    assert list(config.tasks) == ["ctr", "cvr", "dwell", "refund"]


def test_a_configuration_comes_back_from_its_own_text():
    config = config_with()
    assert parse_config(config.to_yaml(), "config.yaml") == config
    for at_scoring in (1, 0, 1.5, "a", True, False, None, "1", "yes"):
        changed = config_with(context={"position": {"at_scoring": at_scoring}})
        back = parse_config(changed.to_yaml(), "config.yaml").context["position"].at_scoring
        assert (back, type(back)) == (at_scoring, type(at_scoring))


def test_every_key_of_the_sections_is_documented_by_its_default():
    """A configuration of nothing but what must be said is complete."""
    needed = ("feature_service", "examples", "split", "tasks")
    config = ProjectConfig.model_validate({key: yaml.safe_load(PROJECT)[key] for key in needed})
    assert config.model == Model()
    assert config.fit == Fit()
    assert parse_config(config.to_yaml(), "config.yaml") == config


def test_yaml_may_share_a_section():
    text = PROJECT.replace("ctr: {", "ctr: &task {weight: 2.0, ").replace(
        "{label: purchased,", "{<<: *task, label: purchased,"
    )
    assert parse_config(text, "mtlrank.yaml").lambdas()["ctr"] == 2.0
    assert parse_config(text, "mtlrank.yaml").tasks["cvr"].weight == 2.0


def test_times_without_a_zone_are_utc():
    split = Split.model_validate({"valid": "2026-01-01 06:00", "test": "2026-01-02T00:00:00+09:00"})
    assert split.valid == datetime(2026, 1, 1, 6, tzinfo=UTC)
    assert split.test == datetime(2026, 1, 1, 15, tzinfo=UTC)


def test_models_are_frozen():
    config = config_with()
    for model, field in ((config, "examples"), (config.fit, "lr"), (InputOptions(), "dim")):
        with pytest.raises(ValueError, match="frozen"):
            setattr(model, field, "x")


def test_settings_override_single_keys(tmp_path):
    (tmp_path / "mtlrank.yaml").write_text(PROJECT)
    pairs = [
        "model.experts=8",
        "model.expert_layers=[32, 16]",
        "fit.lr=1e-2",
        "tasks.ctr.weight=3",
        "truth=null",
    ]
    config = load_config(
        tmp_path, parse_settings([*pairs, " weighting.lambdas.ctr = 0.5 ", "user_key=user_id"])
    )
    assert config.model.experts == 8
    assert config.model.expert_layers == (32, 16)
    assert config.model.dropout == 0.1
    assert config.fit.lr == 0.01
    assert config.fit.epochs == 3
    assert config.tasks["ctr"].weight == 3
    assert config.lambdas() == {"ctr": 0.5, "cvr": 2, "dwell": 1, "refund": 0.5}
    assert config.truth is None
    assert config.user_key == "user_id"


def test_settings_may_make_a_section_that_the_file_lacks():
    text = "\n".join(line for line in PROJECT.splitlines() if not line.startswith("fit:"))
    assert parse_config(text, "mtlrank.yaml", {"fit.epochs": 9}).fit.epochs == 9


def test_settings_may_go_below_a_section_that_is_null():
    """As by default in a complete configuration, or where the key has nothing behind it."""
    text = PROJECT + "calibration:\n"
    settings = {
        "fit.negatives.task": "ctr",
        "fit.negatives.keep": 0.1,
        "tasks.ctr.loss.name": "weighted_bce",
        "tasks.ctr.loss.w1": 3,
        "calibration.method": "platt",
    }
    config = parse_config(text, "mtlrank.yaml", settings)
    assert (config.fit.negatives.task, config.fit.negatives.keep) == ("ctr", 0.1)
    assert (config.tasks["ctr"].loss.name, config.tasks["ctr"].loss.w1) == ("weighted_bce", 3)
    assert config.calibration.method == "platt"
    complete = config_with().to_yaml()
    assert parse_config(complete, "tune", settings).fit.negatives == config.fit.negatives


def test_a_setting_changes_no_other_section_of_the_same_text():
    text = PROJECT.replace("ctr: {label: clicked}", "ctr: &task {label: clicked}\n  again: *task")
    config = parse_config(text, "mtlrank.yaml", {"tasks.ctr.weight": 3})
    assert (config.tasks["ctr"].weight, config.tasks["again"].weight) == (3, 1)


def test_settings_that_do_not_fit():
    assert "did you mean 'experts'?" in complaint({"model.expertss": 8})
    assert "model.experts: " in complaint({"model.experts": "x"})
    assert complaint({"examples.path": 1}) == "--set examples.path: 'examples' is a value, not a section"
    assert "model.branches: needs a list, such as [fm], got 'fm'" in complaint({"model.branches": "fm"})


@pytest.mark.parametrize(
    ("settings", "blamed"),
    [
        ({"model.experts": "x"}, "option on the command line: model.experts: "),
        ({"fit": {"lr": "x"}}, "option on the command line: fit.lr: "),
        (
            {"fit.lr": 0.1, "fit.negatives.keep": 0.1},
            "option fit.negatives.keep on the command line: 'fit.negatives.task' is missing",
        ),
        ({"tasks.dwell.loss": "focal"}, "option tasks.dwell.loss on the command line: tasks.dwell: "),
        ({"split.test": "2026-01-01"}, "option split.test on the command line: split: needs valid < test"),
        (
            {"tasks.cvr.given": "ctrr"},
            "mtlrank.yaml with the options of the command line: tasks.cvr.given: there is no task",
        ),
        (
            {"fit.lr": 0.1, "tasks.like.weight": 2},
            "option tasks.like.weight on the command line: 'tasks.like",
        ),
    ],
    ids=str,
)
def test_what_was_typed_is_not_blamed_on_the_file(settings, blamed):
    with pytest.raises(ConfigError) as caught:
        parse_config(PROJECT, "mtlrank.yaml", settings)
    assert str(caught.value).startswith(blamed)


def test_what_the_file_says_is_not_blamed_on_an_option():
    with pytest.raises(ConfigError, match=r"^mtlrank\.yaml: model\.experts: "):
        parse_config(PROJECT.replace("name: mmoe,", "experts: x,"), "mtlrank.yaml", {"model.dropout": 0.2})


IGNORED = [
    {"weighting.lambdas.dwell": 5},
    {"weighting.lambdas": {"ctr": 1, "dwell": 5}},
    {"weighting": {"method": "manual", "lambdas": {"dwell": 5}}},
    {"weighting.schedule": {"dwell": [[0, 0], [1, 1]]}},
    {"fit.monitor_weights": {"dwell": 2}},
    {"calibration.tasks.refund": "platt"},
    {"tasks.dwell.weight": 2},
]


@pytest.mark.parametrize("settings", IGNORED, ids=str)
def test_a_setting_of_a_task_that_is_left_out_is_refused(settings, tmp_path):
    (tmp_path / "mtlrank.yaml").write_text(PROJECT)
    load_config(tmp_path, settings)
    with pytest.raises(ConfigError, match=r"(dwell|refund) is not trained with --tasks ctr,cvr") as caught:
        load_config(tmp_path, settings, ["ctr", "cvr"])
    assert next(iter(settings)) in str(caught.value)
    assert load_config(tmp_path, settings, ["ctr", "cvr", "dwell", "refund"]).lambdas()


def test_what_the_file_says_of_a_task_that_is_left_out_goes_with_it(tmp_path):
    text = PROJECT.replace("{cvr: 2.0}", "{cvr: 2.0, dwell: 5}, schedule: {dwell: [[0, 1]]}")
    (tmp_path / "mtlrank.yaml").write_text(text + "calibration: {tasks: {refund: platt}}\n")
    config = load_config(tmp_path, {"weighting.lambdas.ctr": 3}, ["ctr", "cvr"])
    assert config.lambdas() == {"ctr": 3, "cvr": 2}
    assert not config.weighting.schedule


@pytest.mark.parametrize("pair", ["model.experts", "=8", " =8", "model.experts=[8", "a={"])
def test_pairs_that_are_no_settings(pair):
    with pytest.raises(ConfigError, match="--set") as caught:
        parse_settings([pair])
    assert pair in str(caught.value)


def test_the_value_of_a_setting_is_yaml():
    pairs = ["a=1", "b=1.5", "c=true", "d=[1, 2]", "e=x=y", "f='1'", "g=", "a=2"]
    assert parse_settings(pairs) == {
        "a": 2,
        "b": 1.5,
        "c": True,
        "d": [1, 2],
        "e": "x=y",
        "f": "1",
        "g": None,
    }
