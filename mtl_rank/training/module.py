"""RankingModule: one training step, one validation pass."""

import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from mtl_rank.config import Fit
from mtl_rank.data.labels import Target
from mtl_rank.nn.layout import Batch
from mtl_rank.nn.network import RankingNetwork
from mtl_rank.training.distributed import with_global_value
from mtl_rank.training.gradients import SharedGradients
from mtl_rank.training.losses import TaskLosses
from mtl_rank.training.optim import RankingOptimizer, learning_rate_factor
from mtl_rank.training.validation import gate_numbers, validation_metrics
from mtl_rank.training.weighting import Weighted, Weighting

# In a smaller batch the penalty would outweigh what few examples say of a frequent id.
L2_BATCH = 512
LOG_EVERY_STEPS = 50


class RankingModule(L.LightningModule):
    """Trains a RankingNetwork on several tasks.

    gradients: what the weighting or the history needs to know of them; None = nothing.
    losses, weighted, gramian: what the last step saw, for the history. valid: the numbers of the last validation.
    """

    def __init__(
        self,
        network: RankingNetwork,
        task_losses: TaskLosses,
        weighting: Weighting,
        gradients: SharedGradients | None,
        targets: tuple[Target, ...],
        options: Fit,
        batch_size: int,
        steps_per_epoch: int,
    ) -> None:
        super().__init__()
        self.network = network
        self.task_losses = task_losses
        self.weighting = weighting
        self.gradients = gradients
        self.targets = targets
        self.options = options
        self.batch_size = batch_size
        self.steps_per_epoch = steps_per_epoch
        self.losses: Tensor | None = None
        self.weighted: Weighted | None = None
        self.gramian: Tensor | None = None
        self.valid: dict[str, float] = {}
        self.gate_use: dict[str, float] = {}
        self._logits: list[Tensor] = []
        self._labels: list[Tensor] = []

    def forward(self, batch: Batch) -> Tensor:
        logits: Tensor = self.network(batch)
        return logits

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        outputs = self.network.outputs(batch)
        logits, labels = self.network.heads.objective(outputs.logits, batch.labels)
        losses = with_global_value(self.task_losses(logits, labels, batch.weights))
        self.gramian = None
        if self.gradients is not None and (self.weighting.needs_gramian or self.is_logged(batch_idx)):
            self.gramian = self.gradients.gramian(losses)
        weighted: Weighted = self.weighting(losses, self.gramian)
        self.losses, self.weighted = losses.detach(), weighted
        return weighted.total if outputs.auxiliary is None else weighted.total + outputs.auxiliary

    def is_logged(self, batch_idx: int) -> bool:
        """Whether the history has a row for this step of an epoch."""
        return (batch_idx + 1) % LOG_EVERY_STEPS == 0 or batch_idx + 1 == self.trainer.num_training_batches

    def validation_step(self, batch: Batch) -> None:
        if not self._logits:
            self.gate_use = gate_numbers(self.network.gates(batch), self.targets)
        self._logits.append(self.task_losses.location(self(batch)).float().cpu())
        self._labels.append(batch.labels.cpu())

    def on_validation_epoch_end(self) -> None:
        logits = torch.cat(self._logits).numpy().astype(np.float64)
        labels = torch.cat(self._labels).numpy().astype(np.float64)
        self._logits.clear()
        self._labels.clear()
        self.valid = validation_metrics(logits, labels, self.targets, self.options.monitor_weights)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        options = self.options
        tables = self.network.tables()
        of_table = {id(table) for table in tables}
        optimizer = RankingOptimizer(
            dense=[p for p in self.network.parameters() if id(p) not in of_table],
            tables=tables,
            undecayed=self.weighting.parameters(),
            lr=options.lr,
            weight_decay=options.weight_decay,
            table_lr=options.embedding_lr,
            table_l2=options.embedding_l2 / max(self.batch_size, L2_BATCH),
            table_rule=options.embedding_optimizer,
            clip_norm=options.clip_norm,
        )
        if options.schedule == "constant" and not options.warmup_steps:
            return optimizer
        # Not `estimated_stepping_batches`: it would build the loader before its position is restored.
        epoch = self.steps_per_epoch
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer,
            lambda step: learning_rate_factor(
                step, epoch, options.epochs, options.warmup_steps, options.schedule
            ),
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
