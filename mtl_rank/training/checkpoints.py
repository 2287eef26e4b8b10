"""Checkpoints from which a killed run continues as if nothing had happened."""

import hashlib
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch

from mtl_rank.progress import Reporter

KEPT = 2
_SUFFIX = ".ckpt"


class TrainingInterrupted(Exception):
    """The user stopped the training; a checkpoint was written."""


class Checkpoints(L.Callback):
    """Writes a checkpoint every few minutes and at the end of each epoch, and keeps the last two.

    A file is complete or absent under its final name, which carries the hash of its content. It holds the
    weights, the optimizer's state with that of the rows, the position in the epoch and the random numbers.
    """

    def __init__(self, folder: Path, minutes: float) -> None:
        self._folder = folder
        self._seconds = 60 * minutes
        self._last = time.monotonic()
        self._random_state: torch.Tensor | None = None
        self.interrupted = False

    def state_dict(self) -> dict[str, Any]:
        return {"random_state": torch.get_rng_state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # Lightning still draws random numbers before the first batch.
        self._random_state = state_dict["random_state"]

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self._random_state is not None:
            torch.set_rng_state(self._random_state)
            self._random_state = None

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx + 1 == trainer.num_training_batches:
            # Validation comes next; resumed from here, Lightning would pass over it.
            return
        due = time.monotonic() - self._last >= self._seconds
        if self._agreed(trainer, self.interrupted or due):
            self._save(trainer)
        if self._agreed(trainer, self.interrupted):
            raise TrainingInterrupted

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._save(trainer)
        # With the last epoch Lightning ends by itself.
        if self._agreed(trainer, self.interrupted) and not trainer.should_stop:
            raise TrainingInterrupted

    def _save(self, trainer: L.Trainer) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        partial = self._folder / "partial"
        trainer.save_checkpoint(partial)
        self._last = time.monotonic()
        if not trainer.is_global_zero:
            return
        name = f"step-{trainer.global_step:010d}-{_digest(partial)}{_SUFFIX}"
        partial.replace(self._folder / name)
        for old in _by_step(self._folder)[:-KEPT]:
            old.unlink()

    def _agreed(self, trainer: L.Trainer, wanted: bool) -> bool:
        """Whether any process wants it: all must save, or stop, at the same step."""
        return (
            wanted if trainer.world_size == 1 else trainer.strategy.reduce_boolean_decision(wanted, all=False)
        )


def newest_checkpoint(folder: Path, reporter: Reporter) -> Path | None:
    """The newest undamaged checkpoint; a damaged one is passed over and named."""
    for path in reversed(_by_step(folder)):
        if path.stem.rsplit("-", 1)[-1] == _digest(path):
            return path
        reporter.say(f"{path} is damaged; continuing from the one before it")
    return None


def _by_step(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"step-*{_SUFFIX}"), key=lambda path: path.name)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
