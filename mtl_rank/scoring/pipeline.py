"""Stages of a job that work at the same time, and a clock that tells how long each was busy."""

import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from queue import Full, Queue
from typing import Generic, TypeVar

S = TypeVar("S")
T = TypeVar("T")

_LOOK_UP = 0.1
_SECONDS_TO_END = 2.0


@dataclass(frozen=True)
class _Item(Generic[T]):
    value: T


@dataclass(frozen=True)
class _End:
    error: BaseException | None = None


@dataclass
class Clock:
    """Seconds that each stage was busy. Stages of one name add up; threads may share a clock."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.add(stage, time.perf_counter() - began)

    def add(self, stage: str, seconds: float) -> None:
        """Seconds that a stage was busy elsewhere."""
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds

    def slowest(self) -> str:
        """The stage that was busy longest, for a progress line; empty before anything was."""
        if not self.seconds:
            return ""
        stage = max(self.seconds, key=lambda name: self.seconds[name])
        return f"mostly {stage}"

    def timed(self, stage: str, items: Iterable[T]) -> Generator[T, None, None]:
        """The same items; the time that they take to come counts for the stage."""
        following = iter(items)
        while True:
            with self(stage):
                try:
                    item = next(following)
                except StopIteration:
                    return
            yield item


def ahead(items: Generator[T, None, None], depth: int = 1) -> Generator[T, None, None]:
    """The same items in the same order, made in a thread of their own while earlier ones are in use.

    depth: how many may wait to be used; so memory does not depend on which side is faster. What the thread raises is
    raised here. Closing this generator ends the thread after the item that it is at.
    """
    waiting: Queue[_Item[T] | _End] = Queue(depth)
    stopped = threading.Event()

    def put(item: _Item[T] | _End) -> None:
        while not stopped.is_set():
            try:
                waiting.put(item, timeout=_LOOK_UP)
                return
            except Full:
                continue

    def work() -> None:
        try:
            with closing(items):
                for item in items:
                    put(_Item(item))
                    if stopped.is_set():
                        return
        except BaseException as error:  # noqa: BLE001, raised again where the items are used
            put(_End(error))
        else:
            put(_End())

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while isinstance(got := waiting.get(), _Item):
            yield got.value
        if got.error is not None:
            raise got.error
    finally:
        stopped.set()
        # Not for ever: after Ctrl-C nobody wants to wait for a long query.
        thread.join(_SECONDS_TO_END)


def each(function: Callable[[S], T], items: Generator[S, None, None]) -> Generator[T, None, None]:
    """`map` that closes its items when it is closed."""
    with closing(items):
        for item in items:
            yield function(item)
