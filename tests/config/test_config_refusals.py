"""A mtlrank.yaml that is wrong, in whatever way: said in one line, with the key and the nearest name."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from project_text import PROJECT, complaint

from mtl_rank.config import load_config, parse_config
from mtl_rank.errors import ConfigError

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
    ({"evaluation": {"draws": 9}}, "evaluation.draws: 9 tell no interval; 0 for none, or at least 10"),
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
    (
        {"weighting": {"schedule": {task: [[0, 0], [2, 0]] for task in ("ctr", "cvr", "dwell", "refund")}}},
        "weighting.schedule: every factor of a task with a lambda is 0",
    ),
    (
        {
            "weighting": {
                "lambdas": dict.fromkeys(["cvr", "dwell", "refund"], 0),
                "schedule": {"ctr": [[0, 0]]},
            }
        },
        "weighting.schedule: every factor of a task with a lambda is 0",
    ),
    ({"weighting": {"schedule": {"ctr": []}}}, "weighting.schedule.ctr: "),
    ({"weighting": {"schedule": {"ctr": [[0, -1]]}}}, "weighting.schedule.ctr.0.1: "),
]


@pytest.mark.parametrize(("sections", "message"), WRONG, ids=str)
def test_a_wrong_value_is_named_with_its_key(sections, message):
    assert complaint(**sections).startswith(message)


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


def test_yaml_never_makes_objects():
    with pytest.raises(ConfigError, match="not YAML"):
        parse_config("examples: !!python/object/apply:os.getcwd []", "mtlrank.yaml")


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
