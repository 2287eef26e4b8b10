"""How long work says where it is. The library reports; the command line draws."""

from typing import Protocol


class Reporter(Protocol):
    """Receives the progress of one piece of work after another."""

    def stage(self, name: str, total: int | None) -> None:
        """A new piece of work begins; total: its number of rows or steps, None when unknown."""

    def advance(self, done: int, note: str = "") -> None:
        """`done` rows or steps of the current stage are finished, counted from its start."""

    def say(self, text: str) -> None:
        """A line that should stay visible."""


class Silent:
    """Reports nothing."""

    def stage(self, name: str, total: int | None) -> None:
        pass

    def advance(self, done: int, note: str = "") -> None:
        pass

    def say(self, text: str) -> None:
        pass
