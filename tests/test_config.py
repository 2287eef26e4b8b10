"""mtlrank.yaml: what it holds comes back, and what is wrong with it is said in a line with the nearest name."""

from datetime import UTC, datetime

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

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

PROJECT = """
feature_repo: feature_repo
feature_service: ranking_v1
examples: data/impressions.parquet
truth: {path: data/truth.parquet, key: impression_id}
split: {valid: 2026-03-25, test: 2026-03-28T12:00:00+02:00}
context:
  position: {role: categorical, at_scoring: 1}
  hour: {}
tasks:
  ctr: {label: clicked}
  cvr: {label: purchased, given: ctr}
  dwell: {label: dwell_seconds, kind: regression, transform: log1p, given: ctr}
  refund: {label: refunded, given: cvr, weight: 0.5}
model: {name: mmoe, expert_layers: [256, 128], dropout: 0.1}
weighting: {method: manual, lambdas: {cvr: 2.0}}
fit: {batch_size: 4096, epochs: 3, precision: fp32}
"""


def text_of(raw):
    return yaml.safe_dump({key: value for key, value in raw.items() if value is not None}, sort_keys=False)


def config_with(**sections):
    """The project with top-level keys replaced; None removes one."""
    raw = {**yaml.safe_load(PROJECT), **sections}
    return parse_config(text_of(raw), "mtlrank.yaml")


def complaint(settings=None, **sections):
    """What the ConfigError says, after the name of the file; always one line."""
    raw = {**yaml.safe_load(PROJECT), **sections}
    with pytest.raises(ConfigError) as caught:
        parse_config(text_of(raw), "mtlrank.yaml", settings)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert "pydantic" not in message.lower()
    return message.removeprefix("mtlrank.yaml: ")


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


UNKNOWN = [
    ({"taks": {}}, "unknown key 'taks'; did you mean 'tasks'?"),
    ({"model": {"nam": "mmoe"}}, "unknown key 'model.nam'; did you mean 'name'?"),
    ({"model": {"expert": 4}}, "unknown key 'model.expert'; did you mean 'experts'?"),
    (
        {"tasks": {"ctr": {"label": "a", "knd": "binary"}}},
        "unknown key 'tasks.ctr.knd'; did you mean 'kind'?",
    ),
    (
        {"tasks": {"label": {"label": "a", "gven": "x"}}},
        "unknown key 'tasks.label.gven'; did you mean 'given'?",
    ),
    ({"context": {"hour": {"rol": "dense"}}}, "unknown key 'context.hour.rol'; did you mean 'role'?"),
    ({"truth": {"path": "a", "key": "b", "kee": 1}}, "unknown key 'truth.kee'; did you mean 'key'?"),
    (
        {"split": {"valid": "2026-01-01", "test": "2026-01-02", "tets": 1}},
        "'split.tets'; did you mean 'test'?",
    ),
    ({"fit": {"learning": 1}}, "unknown key 'fit.learning'; known: "),
    ({"weighting": {"lambda": {}}}, "unknown key 'weighting.lambda'; did you mean 'lambdas'?"),
    ({"tasks": None, "task": {"ctr": {"label": "a"}}}, "unknown key 'task'; did you mean 'tasks'?"),
]


@pytest.mark.parametrize(("sections", "message"), UNKNOWN, ids=str)
def test_an_unknown_key_names_the_nearest(sections, message):
    assert message in complaint(**sections)


WRONG = [
    ({"feature_service": None}, "'feature_service' is missing"),
    ({"tasks": {"ctr": {}}}, "'tasks.ctr.label' is missing"),
    ({"split": {"valid": "2026-01-01"}}, "'split.test' is missing"),
    ({"tasks": {}}, "tasks: "),
    ({"tasks": {"ctr": None}}, "tasks.ctr: "),
    ({"tasks": ["ctr"]}, "tasks: "),
    ({"tasks": {"c t r": {"label": "a"}}}, "tasks"),
    ({"model": {"experts": "many"}}, "model.experts: "),
    ({"model": {"experts": 0}}, "model.experts: "),
    ({"model": {"expert_layers": [64, 0]}}, "model.expert_layers.1: "),
    ({"model": {"dropout": 1.0}}, "model.dropout: "),
    ({"fit": {"batch_size": 0}}, "fit.batch_size: "),
    ({"fit": {"batch_size": "big"}}, "fit.batch_size: "),
    ({"fit": {"precision": "fp16"}}, "fit.precision: "),
    ({"context": {"hour": {"role": "densee"}}}, "context.hour.role: "),
    ({"split": {"valid": "soon", "test": "2026-01-01"}}, "split.valid: "),
    ({"split": {"valid": "2026-01-02", "test": "2026-01-01"}}, "split: needs valid < test"),
    (
        {"split": {"valid": "2026-01-01", "test": "2026-01-03", "end": "2026-01-02"}},
        "split: needs valid < test",
    ),
    ({"weighting": {"lambdas": {"ctr": -1}}}, "weighting.lambdas.ctr: "),
    (
        {"weighting": {"lambdas": {"ctrr": 1}}},
        "weighting.lambdas: there is no task 'ctrr'; did you mean 'ctr'?",
    ),
    (
        {"weighting": {"lambdas": dict.fromkeys(["ctr", "cvr", "dwell", "refund"], 0)}},
        "weighting.lambdas: every lambda is 0",
    ),
    (
        {"weighting": {"schedule": {"ctrr": [[0, 1]]}}},
        "weighting.schedule: there is no task 'ctrr'; did you mean 'ctr'?",
    ),
    (
        {"weighting": {"schedule": {"ctr": [[1, 0], [1, 1]]}}},
        "weighting: schedule.ctr: the epochs of the points must rise, got [1.0, 1.0]",
    ),
    ({"weighting": {"schedule": {"ctr": []}}}, "weighting.schedule.ctr: "),
    ({"weighting": {"schedule": {"ctr": [[0, -1]]}}}, "weighting.schedule.ctr.0.1: "),
]


@pytest.mark.parametrize(("sections", "message"), WRONG, ids=str)
def test_a_wrong_value_is_named_with_its_key(sections, message):
    assert complaint(**sections).startswith(message)


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


@pytest.mark.parametrize(
    "text", ["a: [1", "a: b: c", "\tx: 1", "{", "- 1", "just text", "", "17", "[a]: 1", "? [a, b]\n: 1"]
)
def test_text_that_is_no_configuration(text):
    with pytest.raises(ConfigError, match=r"mtlrank\.yaml") as caught:
        parse_config(text, "mtlrank.yaml")
    assert len(str(caught.value).splitlines()) == 1


def test_text_that_is_not_yaml_names_the_line():
    with pytest.raises(ConfigError, match=r"mtlrank\.yaml line 4: not YAML"):
        parse_config("a: 1\nb:\n  c: [1, 2\nd: 3\n", "mtlrank.yaml")


def test_a_key_that_is_there_twice_names_the_line():
    with pytest.raises(ConfigError, match=r"mtlrank\.yaml line 3: .*'b' is there twice"):
        parse_config("a:\n  b: 1\n  b: 2\n", "mtlrank.yaml")


def test_yaml_may_share_a_section():
    text = PROJECT.replace("ctr: {", "ctr: &task {weight: 2.0, ").replace(
        "{label: purchased,", "{<<: *task, label: purchased,"
    )
    assert parse_config(text, "mtlrank.yaml").lambdas()["ctr"] == 2.0
    assert parse_config(text, "mtlrank.yaml").tasks["cvr"].weight == 2.0


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match=r"no mtlrank\.yaml in"):
        load_config(tmp_path)
    path = tmp_path / "mtlrank.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path)
    path.unlink()
    path.mkdir()
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path)


def paths(node, path=()):
    """The path of every key and element of a document."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in items:
        yield (*path, key)
        yield from paths(child, (*path, key))


PATHS = list(paths(yaml.safe_load(PROJECT)))
WORDS = st.text(st.characters(exclude_categories=["C", "Z"]), max_size=6)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.dates(),
    WORDS,
    st.binary(max_size=3),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(st.integers(), WORDS), inner, max_size=3),
    ),
    max_leaves=4,
)


@settings(deadline=None)
@given(st.sampled_from(PATHS), VALUES)
def test_whatever_stands_anywhere_it_is_taken_or_refused_in_a_line(path, value):
    raw = yaml.safe_load(PROJECT)
    *parents, last = path
    node = raw
    for part in parents:
        node = node[part]
    node[last] = value
    try:
        config = parse_config(yaml.safe_dump(raw, sort_keys=False), "mtlrank.yaml")
    except ConfigError as error:
        message = str(error)
        assert message.startswith("mtlrank.yaml")
        assert len(message.splitlines()) == 1
        assert len(message) < 400
    else:
        assert parse_config(config.to_yaml(), "config.yaml") == config


def test_yaml_never_makes_objects():
    with pytest.raises(ConfigError, match="not YAML"):
        parse_config("examples: !!python/object/apply:os.getcwd []", "mtlrank.yaml")


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


def test_settings_that_do_not_fit():
    assert "did you mean 'experts'?" in complaint({"model.expertss": 8})
    assert "model.experts: " in complaint({"model.experts": "x"})
    assert complaint({"examples.path": 1}) == "--set examples.path: 'examples' is a value, not a section"


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


def test_models_are_frozen():
    config = config_with()
    for model, field in ((config, "examples"), (config.fit, "lr"), (InputOptions(), "dim")):
        with pytest.raises(ValueError, match="frozen"):
            setattr(model, field, "x")


def test_times_without_a_zone_are_utc():
    split = Split.model_validate({"valid": "2026-01-01 06:00", "test": "2026-01-02T00:00:00+09:00"})
    assert split.valid == datetime(2026, 1, 1, 6, tzinfo=UTC)
    assert split.test == datetime(2026, 1, 1, 15, tzinfo=UTC)


def test_every_key_of_the_sections_is_documented_by_its_default():
    """A configuration of nothing but what must be said is complete."""
    needed = ("feature_service", "examples", "split", "tasks")
    config = ProjectConfig.model_validate({key: yaml.safe_load(PROJECT)[key] for key in needed})
    assert config.model == Model()
    assert config.fit == Fit()
    assert parse_config(config.to_yaml(), "config.yaml") == config


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
