"""Replaced scores: the old ones stand until the new are complete, and a job that lost its place is told."""

import pytest
from small_jobs import chunk_of, query, scores_of, sink_of, states, write

from mtl_rank.errors import ScoresError
from mtl_rank.scoring.table import ScoresSchema


def test_replace_keeps_the_old_scores_until_it_is_finished(target):
    write(target, "old", chunks=3)
    with sink_of(target, "new", replace=True) as sink:
        sink.commit(chunk_of(0), scores_of(0))
        assert query(target, "SELECT DISTINCT job_id FROM scores") == [("old",)]
    with sink_of(target, "new", replace=True) as sink:
        assert list(sink.committed) == [0]
        sink.finish(1)
    assert query(target, "SELECT job_id, count(*) FROM scores GROUP BY 1") == [("new", 100)]
    assert query(target, "SELECT table_name FROM duckdb_tables() ORDER BY 1") == [
        ("scores",),
        ("scores_jobs",),
    ]
    assert states(target) == {"old": "replaced", "new": "finished"}
    with sink_of(target, "new", replace=True) as sink:
        assert sink.finished


def test_replace_may_change_the_columns_and_create_the_table(target):
    write(target, "first", replace=True)
    wider = ScoresSchema({"item_id": "BIGINT"}, ("ctr", "like"))
    write(target, "second", schema=wider, replace=True)
    assert [name for (name,) in query(target, "SELECT name FROM pragma_table_info('scores')")] == list(
        wider.columns
    )


def test_a_job_whose_scores_were_replaced_begins_anew(target):
    write(target, "old")
    write(target, "new", replace=True)
    write(target, "old")
    assert query(target, "SELECT job_id, count(*) FROM scores GROUP BY 1 ORDER BY 1") == [
        ("new", 200),
        ("old", 200),
    ]
    assert states(target) == {"old": "finished", "new": "finished"}


def test_a_job_that_runs_while_its_table_is_replaced_is_told(target):
    with sink_of(target, "running") as sink:
        sink.commit(chunk_of(0), scores_of(0))
        write(target, "new", replace=True)
        with pytest.raises(ScoresError, match="job running lost its place"):
            sink.commit(chunk_of(1), scores_of(1))
    write(target, "running")
    counts = query(
        target, "SELECT job_id, count(*), count(DISTINCT item_id) FROM scores GROUP BY 1 ORDER BY 1"
    )
    assert counts == [("new", 200, 200), ("running", 200, 200)]


def test_a_replacement_clears_away_those_that_were_given_up(target):
    with sink_of(target, "given up", replace=True) as sink:
        sink.commit(chunk_of(0), scores_of(0))
    write(target, "new", replace=True)
    assert query(target, "SELECT table_name FROM duckdb_tables() ORDER BY 1") == [
        ("scores",),
        ("scores_jobs",),
    ]
    write(target, "given up", replace=True)
    assert query(target, "SELECT job_id, count(*) FROM scores GROUP BY 1") == [("given up", 200)]


def test_replacements_that_run_at_once_do_not_disturb_each_other(target):
    with sink_of(target, "a", replace=True) as a, sink_of(target, "b", replace=True) as b:
        a.commit(chunk_of(0), scores_of(0))
        b.commit(chunk_of(0), scores_of(0))
        a.finish(1)
        assert query(target, "SELECT DISTINCT job_id FROM scores") == [("a",)]
        b.commit(chunk_of(1), scores_of(1))
        b.finish(2)
    assert query(target, "SELECT job_id, count(*) FROM scores GROUP BY 1") == [("b", 200)]
    assert states(target) == {"a": "replaced", "b": "finished"}


def test_an_unfinished_job_keeps_its_manner(target):
    with sink_of(target, replace=True) as sink:
        sink.commit(chunk_of(0), scores_of(0))
    with pytest.raises(ScoresError, match="run it with --replace"):
        sink_of(target).begin()


def test_a_table_dropped_by_hand_is_written_again(target):
    write(target, "a")
    write(target, "b")
    query(target, "DROP TABLE scores")
    write(target, "a")
    assert states(target) == {"a": "finished", "b": "replaced"}
    assert query(target, "SELECT job_id, count(*) FROM scores GROUP BY 1") == [("a", 200)]


def test_a_table_put_in_the_way_of_a_replacement_is_not_dropped(target):
    with sink_of(target, "new", replace=True) as sink:
        sink.commit(chunk_of(0), scores_of(0))
        query(target, "CREATE TABLE scores (id INT)")
        with pytest.raises(ScoresError, match="was not written by mtl_rank"):
            sink.finish(1)
    assert query(target, "SELECT count(*) FROM scores") == [(0,)]
