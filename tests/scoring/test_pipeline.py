"""Stages in threads: the same items in the same order, never far ahead, and no thread left behind."""

import threading
import time
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtl_rank.scoring import pipeline
from mtl_rank.scoring.pipeline import Clock, ahead, each


def counted(items, made, closed=None):
    try:
        for item in items:
            made.append(item)
            yield item
    finally:
        if closed is not None:
            closed.append(threading.current_thread())


@settings(max_examples=50)
@given(st.lists(st.integers(), max_size=30), st.integers(1, 3), st.integers(0, 3))
def test_items_come_in_order_through_any_number_of_threads(items, depth, threads):
    stream = counted(items, [])
    for _ in range(threads):
        stream = ahead(each(lambda x: x + 1, stream), depth)
    assert list(stream) == [item + threads for item in items]


@pytest.mark.parametrize("depth", [1, 3])
def test_no_more_than_depth_items_wait(depth):
    made = []
    stream = ahead(counted(range(50), made), depth)
    for used, item in enumerate(stream, start=1):
        assert item == used - 1
        # One is in use, `depth` wait, one is being handed over.
        assert len(made) <= used + depth + 1
        time.sleep(0.002)
    assert len(made) == 50


def test_stages_work_at_the_same_time():
    meet = threading.Barrier(2, timeout=300)

    def source():
        for item in range(3):
            meet.wait()
            yield item

    def use(item):
        # The source is at the next item already: without threads neither would ever come.
        if item < 2:
            meet.wait()
        return item

    stream = ahead(source())
    threading.Thread(target=meet.wait).start()
    assert [use(item) for item in stream] == [0, 1, 2]


def test_what_a_stage_raises_is_raised_where_its_items_are_used():
    def source():
        yield 1
        raise KeyError("gone")

    seen, closed = [], []
    stream = ahead(ahead(each(lambda x: x, counted(source(), [], closed))))
    with pytest.raises(KeyError, match="gone"):
        seen.extend(stream)
    assert seen == [1]
    assert len(closed) == 1


@pytest.mark.parametrize("threads", [1, 3])
def test_a_pipeline_that_is_left_ends_its_threads_and_closes_its_source(threads):
    before = threading.active_count()
    made, closed = [], []
    stream = counted(range(10**9), made, closed)
    for _ in range(threads):
        stream = ahead(each(lambda x: x, stream))
    assert next(stream) == 0
    stream.close()
    until = time.monotonic() + 60
    while (threading.active_count() > before or not closed) and time.monotonic() < until:
        time.sleep(0.01)
    assert len(closed) == 1
    assert threading.active_count() <= before
    assert len(made) < 20


def test_the_clock_adds_up_what_stages_take(monkeypatch):
    seconds = iter([0, 1, 1, 21, 21, 22, 22, 42, 42, 43])
    monkeypatch.setattr(pipeline, "time", SimpleNamespace(perf_counter=lambda: next(seconds)))
    clock = Clock()
    for _ in clock.timed("make", range(2)):
        with clock("use"):
            pass
    assert clock.seconds == {"make": 3, "use": 40}
    assert clock.slowest() == "mostly use"
    assert Clock().slowest() == ""
