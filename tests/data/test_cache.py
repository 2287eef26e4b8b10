"""Prepared data is reused while nothing it was made from has changed, and never for anything else."""

import pytest

from mtl_rank.config import load_config
from mtl_rank.data.cache import list_cache, prepared
from mtl_rank.features.repository import open_repository
from mtl_rank.progress import Silent


class Heard(Silent):
    """Keeps what was said."""

    def __init__(self):
        self.lines = []

    def say(self, text):
        self.lines.append(text)


def prepare(project, tasks, **settings):
    """(prepared data, whether it was there already)."""
    config = load_config(project, settings).with_tasks(tasks)
    repository = open_repository(project / config.feature_repo, config.feature_service, config.context)
    heard = Heard()
    found = prepared(config, project, repository, heard)
    return found, any("reused" in line for line in heard.lines)


def names(found):
    return [target.name for target in found.encoder.targets]


def test_the_same_data_is_prepared_once(project):
    first, was_there = prepare(project, ["ctr", "cvr"])
    assert not was_there
    second, was_there = prepare(project, ["ctr", "cvr"])
    assert was_there
    assert second.fingerprint == first.fingerprint
    assert second.train.arrays.labels.tobytes() == first.train.arrays.labels.tobytes()
    assert [entry.rows for entry in list_cache(project)] == [
        {"train": first.train.rows, "valid": first.valid.rows}
    ]


SAME_LABEL = {"tasks.dwell.label": "clicked", "tasks.dwell.transform": "none", "tasks.dwell.given": None}


@pytest.mark.parametrize(("tasks", "settings"), [(["ctr", "cvr"], {}), (["ctr", "dwell"], SAME_LABEL)])
def test_the_order_of_the_tasks_is_that_asked_for(project, tasks, settings):
    """Labels are columns in task order: data of another order would train each task on another's label."""
    first, _ = prepare(project, tasks, **settings)
    second, was_there = prepare(project, tasks[::-1], **settings)
    assert not was_there
    assert (names(first), names(second)) == (tasks, tasks[::-1])
    swapped = second.train.arrays.labels[:, ::-1]
    assert swapped.tobytes() == first.train.arrays.labels.tobytes()


@pytest.mark.parametrize("name", ["ids.bin", "manifest.json"])
def test_a_damaged_entry_is_made_again(project, name):
    first, _ = prepare(project, ["ctr"])
    expected = first.train.arrays.ids.tobytes()
    path = project / "cache" / first.fingerprint / "train" / name
    path.write_bytes(path.read_bytes()[:-1])
    second, was_there = prepare(project, ["ctr"])
    assert not was_there
    assert second.train.arrays.ids.tobytes() == expected
