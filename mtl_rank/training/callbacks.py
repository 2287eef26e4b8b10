"""What happens around the steps: the history, the best weights, early stopping, progress."""

import csv
import math
import time
from pathlib import Path
from typing import Any

import lightning as L
from safetensors.torch import save_file

from mtl_rank.progress import Reporter
from mtl_rank.training.module import RankingModule
from mtl_rank.training.validation import improves, monitored_names

EVERY_STEPS = 50


class History(L.Callback):
    """Appends to history.csv: raw loss, lambda and share of the total per task every 50 steps, and the
    validation metrics at the end of each epoch.
    """

    def __init__(self, path: Path, reporter: Reporter) -> None:
        self._path = path
        self._reporter = reporter
        self._start = time.monotonic()
        self._rows_done = 0
        self._mark = (self._start, 0)

    def on_fit_start(self, trainer: L.Trainer, pl_module: RankingModule) -> None:  # type: ignore[override]
        names = [target.name for target in pl_module.targets]
        steps = [f"{kind}/{name}" for kind in ("loss", "lambda", "share") for name in names]
        self._columns = [
            "epoch",
            "step",
            "seconds",
            "rows_per_second",
            *steps,
            *monitored_names(pl_module.targets),
        ]
        with self._path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerow(self._columns)
        self._start = time.monotonic()
        self._mark = (self._start, 0)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        epochs = trainer.max_epochs
        self._reporter.stage(f"epoch {trainer.current_epoch + 1}/{epochs}", int(trainer.num_training_batches))

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: L.Trainer, pl_module: RankingModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._rows_done += len(batch.labels)
        last = batch_idx + 1 == trainer.num_training_batches
        if (batch_idx + 1) % EVERY_STEPS and not last:
            return
        row = self._step_row(trainer, pl_module)
        self._append(row)
        losses = " ".join(f"{t.name} {row[f'loss/{t.name}']:.4f}" for t in pl_module.targets)
        self._reporter.advance(batch_idx + 1, f"{losses}  {row['rows_per_second']:,.0f} rows/s")

    def on_validation_end(self, trainer: L.Trainer, pl_module: RankingModule) -> None:  # type: ignore[override]
        self._append({**self._position(trainer), **pl_module.valid})
        shown = "  ".join(
            f"{name.removeprefix('valid/')} {value:.4f}" for name, value in pl_module.valid.items()
        )
        self._reporter.say(f"epoch {trainer.current_epoch + 1}: {shown}")

    def _position(self, trainer: L.Trainer) -> dict[str, float]:
        seconds = round(time.monotonic() - self._start, 3)
        return {"epoch": trainer.current_epoch, "step": trainer.global_step, "seconds": seconds}

    def _step_row(self, trainer: L.Trainer, pl_module: RankingModule) -> dict[str, float]:
        assert pl_module.losses is not None
        assert pl_module.weighted is not None
        losses = pl_module.losses.tolist()
        lambdas = pl_module.weighted.lambdas.tolist()
        total = math.fsum(a * b for a, b in zip(losses, lambdas, strict=True))
        row = self._position(trainer)
        now, (then, rows_then) = time.monotonic(), self._mark
        row["rows_per_second"] = round((self._rows_done - rows_then) / max(now - then, 1e-9), 1)
        self._mark = (now, self._rows_done)
        for target, loss, factor in zip(pl_module.targets, losses, lambdas, strict=True):
            row[f"loss/{target.name}"] = loss
            row[f"lambda/{target.name}"] = factor
            row[f"share/{target.name}"] = factor * loss / total if total else 0.0
        return row

    def _append(self, row: dict[str, float]) -> None:
        with self._path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self._columns, restval="").writerow(row)


class BestWeights(L.Callback):
    """Keeps the network of the best epoch in model.safetensors and stops when `patience` epochs bring nothing."""

    def __init__(self, path: Path, monitor: str, patience: int) -> None:
        self._path = path
        self._monitor = monitor
        self._patience = patience
        self.best_epoch = 0
        self.best: dict[str, float] = {}

    def on_validation_end(self, trainer: L.Trainer, pl_module: RankingModule) -> None:  # type: ignore[override]
        value = pl_module.valid[self._monitor]
        if improves(self._monitor, value, self.best.get(self._monitor)):
            self.best, self.best_epoch = dict(pl_module.valid), trainer.current_epoch
            partial = self._path.with_suffix(".partial")
            state = {name: tensor.contiguous() for name, tensor in pl_module.network.state_dict().items()}
            save_file(state, partial)
            partial.replace(self._path)
        elif trainer.current_epoch - self.best_epoch >= self._patience:
            trainer.should_stop = True
