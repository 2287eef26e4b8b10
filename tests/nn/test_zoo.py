"""Names, and which parts of a composition go together."""

import pytest
from random_inputs import EVEN, LAYOUT

from mtl_rank.config import Model, Task
from mtl_rank.errors import ConfigError
from mtl_rank.nn.layout import Layout
from mtl_rank.nn.zoo import ZOO, check_model, parts_of

BINARY = Task(label="y")
ONE = {"ctr": BINARY}
TWO = {"ctr": BINARY, "like": BINARY}
GIVEN = {"ctr": BINARY, "cvr": Task(label="y", given="ctr")}
BACKWARDS = {"cvr": Task(label="y", given="ctr"), "ctr": BINARY}


@pytest.mark.parametrize(
    ("options", "tasks", "message"),
    [
        ({"name": "mmoee"}, TWO, r"model\.name: there is no model 'mmoee'; did you mean 'mmoe'\?"),
        ({"branches": ["crosss"]}, TWO, r"model\.branches: there is no 'crosss'"),
        ({"sequences": "meen"}, TWO, r"model\.sequences: there is no 'meen'; did you mean 'mean'\?"),
        ({"heads": "aitmm"}, TWO, r"model\.heads: there is no 'aitmm'; did you mean 'aitm'\?"),
        ({"expert_layers": []}, TWO, r"model\.expert_layers: needs at least one width"),
        ({"bottom_layers": []}, TWO, r"model\.bottom_layers: needs at least one width"),
        ({"name": "ple"}, ONE, r"ple parts experts between tasks and there is one task; use dnn"),
        ({"name": "esmm"}, TWO, r"esmm needs a binary task with `given`, such as cvr given ctr"),
        ({"name": "mmoe", "heads": "esmm"}, ONE, r"esmm needs a binary task with `given`"),
        ({"name": "aitm"}, ONE, r"aitm passes information from task to task and there is one; use dnn"),
        ({"name": "aitm"}, BACKWARDS, r"put each task behind the one it is given"),
        (
            {"name": "esmm"},
            {"ctr": BINARY, "cvr": Task(label="y", given="ctr", loss={"name": "bce", "smoothing": 0.1})},
            r"tasks\.cvr\.loss: under esmm cvr is trained as a product",
        ),
        (
            {"name": "esmm"},
            {"ctr": BINARY, "cvr": Task(label="y", given="ctr", inverse_propensity=0.1)},
            r"tasks\.cvr\.inverse_propensity: under esmm cvr is trained on every row already",
        ),
        ({"name": "esmm", "heads": "aitm"}, GIVEN, r"model\.heads: esmm has esmm, not aitm; leave it out"),
    ],
)
def test_what_cannot_work_is_refused_with_what_to_change(options, tasks, message):
    with pytest.raises(ConfigError, match=message) as caught:
        check_model(Model(**options), tasks, LAYOUT)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", sorted(ZOO))
def test_every_name_works_with_a_funnel(name):
    check_model(Model(name=name, history={"heads": 3}), GIVEN, EVEN)


def test_the_parts_of_a_name_and_of_the_configuration_join():
    parts = parts_of(Model(name="ple", heads="aitm", sequences="none"))
    assert (parts.trunk, parts.heads, parts.sequences) == ("ple", "aitm", "none")
    assert parts_of(Model()).sequences == "mean"


EMPTY = Layout((), (), (), (), ("age",))
