"""An Optuna study in a folder, shared by any number of processes, any of which may be killed at any moment."""

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, Trial, TrialState

from mtl_rank.tuning.space import Space, Value

_STUDY = "tune"
_STARTUP = 8
_TAIL = 1 << 16


class KernelLock(JournalFileOpenLock):
    """A lock on the journal that ends with its holder: Optuna's own, a file, outlives a killed process.

    Whoever gets it finds whole lines: one that a killed process did not finish is cut off, or what follows it
    would be unreadable.
    """

    def __init__(self, journal: Path) -> None:
        super().__init__(str(journal))
        self._journal = journal
        self._held: IO[str] | None = None

    def acquire(self) -> bool:
        self._held = self._journal.with_suffix(".lock").open("w")
        fcntl.flock(self._held, fcntl.LOCK_EX)
        with self._journal.open("ab+") as file:
            size = file.seek(0, os.SEEK_END)
            start = max(size - _TAIL, 0)
            file.seek(start)
            whole = file.read().rfind(b"\n") + 1
            if start + whole < size:
                file.truncate(start + whole)
        return True

    def release(self) -> None:
        assert self._held is not None
        self._held.close()


@dataclass(frozen=True)
class Claim:
    """A trial that this process alone trains. values: of the space's parameters. again: another process died at it."""

    trial: Trial
    values: dict[str, Value]
    folder: Path
    again: bool

    @property
    def number(self) -> int:
        return self.trial.number


class Study:
    """The trials of one study. folder: where its journal and the folder of each trial are."""

    def __init__(self, folder: Path, space: Space, objectives: int, seed: int) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._folder = folder
        self._space = space
        self._seed = seed
        journal = folder / "journal.log"
        with locked(folder / "lock"):
            self._study = optuna.create_study(
                storage=JournalStorage(JournalFileBackend(str(journal), KernelLock(journal))),
                study_name=_STUDY,
                directions=["minimize"] * objectives,
                load_if_exists=True,
            )

    def start_with(self, values: Sequence[dict[str, float]]) -> None:
        """Parameters that the first trials take; those that are there already are not added again."""
        with locked(self._folder / "lock"):
            for one in values[len(self._study.trials) :]:
                self._study.enqueue_trial(one)

    @contextmanager
    def claim(self, wanted: int) -> Iterator[Claim | None]:
        """A trial to train: one whose process died, or a new one while there are fewer than `wanted`; else None."""
        with ExitStack() as held:
            with locked(self._folder / "lock"):
                claim = self._take(wanted, held)
            yield claim

    def _take(self, wanted: int, held: ExitStack) -> Claim | None:
        trials = self._study.trials
        for trial in trials:
            if trial.state == TrialState.RUNNING and self._left_behind(trial.number, held):
                self._seed_sampler(trial.number)
                return self._claimed(Trial(self._study, trial._trial_id), again=True)
        waiting = [trial.number for trial in trials if trial.state == TrialState.WAITING]
        if len(trials) - len(waiting) >= wanted:
            return None
        self._seed_sampler(waiting[0] if waiting else len(trials))
        asked = self._study.ask()
        held.enter_context(locked(self._of(asked.number) / "lock"))
        return self._claimed(asked, again=False)

    def _left_behind(self, number: int, held: ExitStack) -> bool:
        """Whether nobody trains a running trial; its lock is then held."""
        if not held.enter_context(locked(self._of(number) / "lock", wait=False)):
            return False
        # Who let go of the lock may have finished it since it was looked at.
        return self._study.trials[number].state == TrialState.RUNNING

    def _seed_sampler(self, number: int) -> None:
        """A sampler of its own for each trial: one that began anew after a restart would repeat itself."""
        seed = int(np.random.SeedSequence((self._seed, number)).generate_state(1)[0])
        self._study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=_STARTUP)

    def _claimed(self, trial: Trial, again: bool) -> Claim:
        return Claim(trial, self._space.suggest(trial), self._of(trial.number), again)

    def succeeded(self, claim: Claim, values: Sequence[float], metrics: dict[str, float]) -> None:
        claim.trial.set_user_attr("metrics", metrics)
        self._study.tell(claim.trial, values)

    def failed(self, claim: Claim, reason: str) -> None:
        claim.trial.set_user_attr("reason", reason)
        self._study.tell(claim.trial, state=TrialState.FAIL)

    def complete(self) -> list[FrozenTrial]:
        return self._study.get_trials(states=[TrialState.COMPLETE])

    def failures(self) -> dict[int, str]:
        failed = self._study.get_trials(states=[TrialState.FAIL])
        return {trial.number: trial.user_attrs["reason"] for trial in failed}

    def running(self) -> int:
        return len(self._study.get_trials(states=[TrialState.RUNNING]))

    def with_front(self) -> tuple[list[FrozenTrial], set[int]]:
        """The trials with a result, and the numbers of those that none of them beats."""
        while True:
            complete = self.complete()
            front = {trial.number for trial in self._study.best_trials}
            # Otherwise another process ended a trial between the two looks, which may beat all of these.
            if len(self.complete()) == len(complete):
                return complete, front

    def _of(self, number: int) -> Path:
        return self._folder / "trials" / f"{number:04d}"


@contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[bool]:
    """Hold the file lock `path`; the kernel frees it when its holder dies. False when another one holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True
