"""Which of the network's outputs belong to which task."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol


class Classified(Protocol):
    """What is asked of a task: its kind, and its classes if they are more than two."""

    @property
    def kind(self) -> str: ...

    @property
    def classes(self) -> tuple[object, ...]: ...


@dataclass(frozen=True)
class Columns:
    """A task has one logit; a multiclass one has one per class, an ordinal one the logits of y > class but the last.

    Column t is the first of task t, so that a task with one logit stands where it would without others. Further ones
    stand behind those of all tasks: first those that towers give, then those that differ by cut points alone.

    of_task: per task its columns, in the order of its classes. cut: the ordinal tasks, in the order of the last
    columns. towers: how many columns the towers give.
    """

    of_task: tuple[tuple[int, ...], ...]
    cut: tuple[int, ...]
    towers: int

    @staticmethod
    def of(tasks: Iterable[Classified]) -> "Columns":
        tasks = list(tasks)
        own = [[task] for task in range(len(tasks))]
        total = len(tasks)
        ends = []
        for kind, logits in (("multiclass", 0), ("ordinal", -1)):
            for task, one in enumerate(tasks):
                if one.kind == kind:
                    more = len(one.classes) + logits - 1
                    own[task] += range(total, total + more)
                    total += more
            ends.append(total)
        cut = tuple(task for task, one in enumerate(tasks) if one.kind == "ordinal")
        return Columns(tuple(map(tuple, own)), cut, ends[0])

    @staticmethod
    def plain(tasks: int) -> "Columns":
        """One logit per task."""
        return Columns(tuple((task,) for task in range(tasks)), (), tasks)

    @property
    def total(self) -> int:
        """C, how many columns there are."""
        return sum(map(len, self.of_task))

    @property
    def of_towers(self) -> tuple[tuple[int, ...], ...]:
        """Per task those of its columns that its tower gives."""
        return tuple(tuple(c for c in columns if c < self.towers) for columns in self.of_task)
