"""What happens around the steps: the history, the best weights, early stopping, progress."""

import csv
import math
import time
from itertools import combinations
from pathlib import Path
from typing import Any

import lightning as L
from safetensors.torch import save_file
from torch import Tensor

from mtl_rank.durable import PARTIAL, appearing
from mtl_rank.progress import Reporter
from mtl_rank.training.gradients import cosines
from mtl_rank.training.module import RankingModule
from mtl_rank.training.validation import gate_names, improves, monitored_names


class History(L.Callback):
    """Appends to history.csv: raw loss, lambda and share of the total per task every 50 steps, and the
    validation metrics at the end of each epoch, with the use of experts on the first batch of validation.

    gradients: also the norm of each task's gradient and the cosine between each two.
    """

    def __init__(self, path: Path, reporter: Reporter, gradients: bool = False) -> None:
        self._path = path
        self._reporter = reporter
        self._gradients = gradients
        self._start = time.monotonic()
        self._rows_done = 0
        self._seconds_before = 0.0
        self._mark = (self._start, 0)

    def on_train_start(self, trainer: L.Trainer, pl_module: RankingModule) -> None:  # type: ignore[override]
        names = [target.name for target in pl_module.targets]
        steps = [f"{kind}/{name}" for kind in ("loss", "lambda", "share") for name in names]
        if self._gradients:
            steps += [f"gradient/{name}" for name in names]
            steps += [f"cosine/{a}/{b}" for a, b in combinations(names, 2)]
        self._columns = [
            "epoch",
            "step",
            "seconds",
            "rows_per_second",
            *steps,
            *monitored_names(pl_module.targets),
            *gate_names(pl_module.network.trunk.experts_per_level, pl_module.targets),
        ]
        if trainer.is_global_zero:
            self._start_file(trainer.global_step)
        self._start = time.monotonic()
        self._mark = (self._start, 0)

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self.seconds()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._seconds_before = state_dict["seconds"]

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        epochs = trainer.max_epochs
        self._reporter.stage(f"epoch {trainer.current_epoch + 1}/{epochs}", int(trainer.num_training_batches))

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: L.Trainer, pl_module: RankingModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._rows_done += len(batch.labels)
        if not pl_module.is_logged(batch_idx):
            return
        row = self._step_row(trainer, pl_module)
        self._append(trainer, row)
        tasks = "  ".join(
            f"{name} {row[f'loss/{name}']:.4f} x {row[f'lambda/{name}']:.3g} ({row[f'share/{name}']:.0%})"
            for name in (target.name for target in pl_module.targets)
        )
        self._reporter.advance(batch_idx + 1, f"{tasks}  {row['rows_per_second']:,.0f} rows/s")

    def on_validation_end(self, trainer: L.Trainer, pl_module: RankingModule) -> None:  # type: ignore[override]
        self._append(trainer, {**self._position(trainer), **pl_module.valid, **pl_module.gate_use})
        shown = "  ".join(
            f"{name.removeprefix('valid/')} {value:.4f}" for name, value in pl_module.valid.items()
        )
        self._reporter.say(f"epoch {trainer.current_epoch + 1}: {shown}")

    def _position(self, trainer: L.Trainer) -> dict[str, float]:
        return {"epoch": trainer.current_epoch, "step": trainer.global_step, "seconds": self.seconds()}

    def seconds(self) -> float:
        """Time spent training, that before the last checkpoint included."""
        return round(self._seconds_before + time.monotonic() - self._start, 3)

    def _start_file(self, step: int) -> None:
        """A header; after a resume also the rows up to the checkpoint, since what followed happens again."""
        kept: list[dict[str, str]] = []
        if step and self._path.exists():
            # A full disk may have cut the last line off.
            whole = self._path.read_text(encoding="utf-8").rpartition("\n")[0]
            kept = [row for row in csv.DictReader(whole.splitlines()) if int(row["step"]) <= step]
        partial = self._path.with_name(self._path.name + ".partial")
        with partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self._columns, restval="")
            writer.writeheader()
            writer.writerows(kept)
        partial.replace(self._path)

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
        if self._gradients and pl_module.gramian is not None:
            row |= _of_gradients([target.name for target in pl_module.targets], pl_module.gramian)
        return row

    def _append(self, trainer: L.Trainer, row: dict[str, float]) -> None:
        if not trainer.is_global_zero:
            return
        with self._path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self._columns, restval="").writerow(row)
        for logger in trainer.loggers:
            logger.log_metrics(row, step=trainer.global_step)


def _of_gradients(names: list[str], gramian: Tensor) -> dict[str, float]:
    norms, between = gramian.diagonal().sqrt().tolist(), cosines(gramian).tolist()
    pairs = combinations(range(len(names)), 2)
    return {f"gradient/{name}": norm for name, norm in zip(names, norms, strict=True)} | {
        f"cosine/{names[a]}/{names[b]}": between[a][b] for a, b in pairs
    }


class BestWeights(L.Callback):
    """Keeps the network of the best epoch in model.safetensors and stops when `patience` epochs bring nothing."""

    def __init__(self, path: Path, monitor: str, patience: int) -> None:
        self._path = path
        self._monitor = monitor
        self._patience = patience
        self.best_epoch = 0
        self.best: dict[str, float] = {}
        self._stopped = False

    def state_dict(self) -> dict[str, Any]:
        return {"best_epoch": self.best_epoch, "best": self.best, "stopped": self._stopped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best_epoch, self.best = state_dict["best_epoch"], state_dict["best"]
        self._stopped = state_dict["stopped"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        trainer.should_stop = trainer.should_stop or self._stopped
        if trainer.is_global_zero:
            # Of processes that were killed.
            for unfinished in self._path.parent.glob(f"{self._path.name}.*{PARTIAL}"):
                unfinished.unlink()

    def on_validation_end(self, trainer: L.Trainer, pl_module: RankingModule) -> None:  # type: ignore[override]
        value = pl_module.valid[self._monitor]
        if improves(self._monitor, value, self.best.get(self._monitor)):
            self.best, self.best_epoch = dict(pl_module.valid), trainer.current_epoch
            if not trainer.is_global_zero:
                return
            state = {name: tensor.contiguous() for name, tensor in pl_module.network.state_dict().items()}
            with appearing(self._path) as partial:
                save_file(state, partial)
        elif trainer.current_epoch - self.best_epoch >= self._patience:
            trainer.should_stop = self._stopped = True
