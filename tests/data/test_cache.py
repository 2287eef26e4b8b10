"""Prepared data is reused while nothing it was made from has changed, and never for anything else."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from mtl_rank.config import load_config
from mtl_rank.data.cache import clear_cache, list_cache, prepared
from mtl_rank.errors import MtlRankError
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


def test_what_an_error_costs_does_not_change_the_data(project):
    first, _ = prepare(project, ["ctr", "cvr"])
    settings = {
        "tasks.ctr.loss": "focal",
        "tasks.cvr.weight": 0.3,
        "tasks.cvr.mean_over": "batch",
        "weighting.method": "manual",
    }
    second, was_there = prepare(project, ["ctr", "cvr"], **settings)
    assert was_there
    assert second.fingerprint == first.fingerprint


def test_rows_appended_to_a_source_are_a_change(project):
    first, _ = prepare(project, ["ctr"])
    appended = project / "data" / "user_stats.parquet.appended"
    appended.mkdir()
    pl.read_parquet(project / "data" / "user_stats.parquet").head(1).write_parquet(appended / "new.parquet")
    second, was_there = prepare(project, ["ctr"])
    assert not was_there
    assert second.fingerprint != first.fingerprint


STATE = """
import sys
from mtl_rank.features.repository import open_repository
from mtl_rank.features.state import source_state
from pathlib import Path
print(*source_state(open_repository(Path(sys.argv[1]), "ranking_v1", {})), sep="\\n")
"""


def test_another_process_finds_the_same_features(applied):
    """Sets of names have another order in each process: of no matter to what features are."""
    found = [
        subprocess.run(
            [sys.executable, "-c", STATE, applied / "feature_repo"],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "7")
    ]
    assert "view price_match" in found[0]
    assert found[0] == found[1]


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from test_cache import prepare
import mtl_rank.data.cache as cache
cache.encode_splits = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
prepare(Path(sys.argv[1]), ["ctr"])
"""


def test_what_a_killed_preparation_had_begun_is_removed(project):
    words = [sys.executable, "-c", KILLED, project, Path(__file__).parent]
    assert subprocess.run(words, check=False).returncode == -9
    left = shutil.copytree(project / "cache", project / "left")
    for remove in (lambda: clear_cache(project), lambda: prepare(project, ["ctr", "cvr"])):
        shutil.copytree(left, project / "cache", dirs_exist_ok=True)
        assert len(list((project / "cache").glob("*.partial"))) == 2
        remove()
        assert list((project / "cache").glob("*.partial")) == []
    assert len(list_cache(project)) == 1


KILLED_CLEARING = """
import os, shutil, signal, sys
from pathlib import Path
from mtl_rank.data.cache import clear_cache
unlink = os.unlink
def once(*args, **options):
    unlink(*args, **options)
    os.kill(os.getpid(), signal.SIGKILL)
os.unlink = once
clear_cache(Path(sys.argv[1]))
"""


def test_what_a_killed_removal_left_is_removed(project):
    prepare(project, ["ctr"])
    words = [sys.executable, "-c", KILLED_CLEARING, project]
    assert subprocess.run(words, check=False).returncode == -9
    assert list_cache(project) == []
    assert clear_cache(project) > 0
    assert [path.name for path in (project / "cache").iterdir()] == ["locks"]


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


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("ids.bin", lambda content: content[:-1]),
        ("ids.bin", lambda content: content[:99] + bytes([content[99] ^ 1]) + content[100:]),
        ("manifest.json", lambda content: content[:-1]),
    ],
)
def test_a_damaged_entry_is_made_again(project, name, change):
    first, _ = prepare(project, ["ctr"])
    expected = first.train.arrays.ids.tobytes()
    path = project / "cache" / first.fingerprint / "train" / name
    path.write_bytes(change(path.read_bytes()))
    second, was_there = prepare(project, ["ctr"])
    assert not was_there
    assert second.train.arrays.ids.tobytes() == expected


def with_weights(project, values):
    path = project / "data" / "impressions.parquet"
    examples = pl.read_parquet(path)
    examples.with_columns(importance=values(examples)).write_parquet(path)


def test_the_weights_of_the_training_rows_are_kept_in_their_order(project):
    with_weights(project, lambda examples: pl.col("impression_id") % 7)
    found, _ = prepare(project, ["ctr"], weights="importance")
    plain, _ = prepare(project, ["ctr"])
    assert plain.fingerprint != found.fingerprint
    assert plain.train.arrays.weights is None
    assert found.valid.arrays.weights is None
    examples = pl.read_parquet(project / "data" / "impressions.parquet").sort("event_timestamp")
    expected = examples["importance"].head(found.train.rows)
    assert sorted(found.train.arrays.weights.tolist()) == sorted(expected.to_list())
    assert found.train.arrays.ids.tobytes() == plain.train.arrays.ids.tobytes()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (pl.lit(-1.0), "-1"),
        (pl.lit(None, pl.Float64), "nulls"),
        (pl.lit(float("inf")), "inf"),
        (pl.lit("much"), "String"),
    ],
)
def test_weights_that_are_none_are_refused(project, value, words):
    with_weights(project, lambda _: value)
    with pytest.raises(MtlRankError, match="importance") as caught:
        prepare(project, ["ctr"], weights="importance")
    assert words in str(caught.value)


def test_a_weight_column_that_is_not_there_is_named(project):
    with pytest.raises(MtlRankError, match="importence"):
        prepare(project, ["ctr"], weights="importence")
