"""Progress on stderr: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

LINE_EVERY_SECONDS = 10.0


class Bars:
    """Draws one bar for the current stage; lines that should stay are printed above it."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            transient=True,
        )
        self._task: TaskID | None = None

    def stage(self, name: str, total: int | None) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._task = self._progress.add_task(name, total=total, note="")

    def advance(self, done: int, note: str = "") -> None:
        if self._task is not None:
            self._progress.update(self._task, completed=done, note=note)

    def say(self, text: str) -> None:
        self._progress.console.print(text, markup=False, highlight=False)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()


class Lines:
    """Writes a line when a stage begins and every ten seconds of it."""

    def __init__(self) -> None:
        self._name = ""
        self._total: int | None = None
        self._last = time.monotonic()

    def stage(self, name: str, total: int | None) -> None:
        self._name, self._total, self._last = name, total, time.monotonic()
        self.say(name if total is None else f"{name} ({total:,})")

    def advance(self, done: int, note: str = "") -> None:
        now = time.monotonic()
        if now - self._last >= LINE_EVERY_SECONDS:
            self._last = now
            of = f" of {self._total:,}" if self._total is not None else ""
            self.say(f"{self._name}: {done:,}{of} {note}".rstrip())

    def say(self, text: str) -> None:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


def progress() -> Bars | Lines:
    """The reporter that fits where stderr goes; use it in a `with`."""
    console = Console(stderr=True)
    return Bars(console) if console.is_terminal else Lines()
