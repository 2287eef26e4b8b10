"""Losses: what an error on one row costs, and the mean of it per task."""

from mtl_rank.training.losses.pointwise import LOSSES
from mtl_rank.training.losses.task_losses import TaskLosses, loss_of

__all__ = ["LOSSES", "TaskLosses", "loss_of"]
