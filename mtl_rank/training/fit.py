"""The only place that builds a Trainer."""

import logging
import signal
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import FrameType

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger

from mtl_rank.config import ProjectConfig
from mtl_rank.data.datamodule import RUN_ROWS, RankingDataModule, auto_batch_size
from mtl_rank.data.encoded import EncodedDataset
from mtl_rank.data.encoder import FeatureEncoder
from mtl_rank.data.labels import Target
from mtl_rank.data.sampling import NegativeSampling
from mtl_rank.errors import ConfigError, DataError
from mtl_rank.nn.columns import Columns
from mtl_rank.nn.embedding import Vectors
from mtl_rank.nn.zoo import build_network
from mtl_rank.progress import Reporter
from mtl_rank.training.callbacks import BestWeights, History
from mtl_rank.training.checkpoints import Checkpoints, TrainingInterrupted, newest_checkpoint
from mtl_rank.training.gradients import SharedGradients
from mtl_rank.training.losses import TaskLosses
from mtl_rank.training.module import RankingModule
from mtl_rank.training.precision import Precision, choose_precision, matmul_precision
from mtl_rank.training.validation import check_measurable
from mtl_rank.training.weighting import build_weighting


@dataclass(frozen=True)
class FitResult:
    """What training did. valid: the validation metrics of the best epoch, whose weights were kept."""

    epochs: int
    best_epoch: int
    valid: dict[str, float]
    batch_size: int
    precision: str
    parameters: int
    embedding_parameters: int
    seconds: float
    rows_per_second: float


def fit(
    config: ProjectConfig,
    encoder: FeatureEncoder,
    train: EncodedDataset,
    valid: EncodedDataset,
    folder: Path,
    reporter: Reporter,
    precision: Precision | None = None,
    vectors: Sequence[Vectors] = (),
) -> FitResult:
    """Train the configured network; leaves model.safetensors (best epoch) and history.csv in `folder`.

    precision: None = as the configuration says; a run that is resumed has to keep its own.
    vectors: embeddings to start from.

    Continues from the newest checkpoint in `folder`, if there is one: same batches, same state, same numbers.
    Raises TrainingInterrupted on Ctrl-C, after a checkpoint was written.
    """
    L.seed_everything(config.fit.seed, verbose=False)
    network = build_network(config.model, encoder.layout, prior_logits(encoder.targets), config.tasks)
    for given in vectors:
        network.embeddings.load(given)
    sampling = _sampling(config, train)
    rows = sampling.rows if sampling else train.rows
    batch_size = config.fit.batch_size if config.fit.batch_size != "auto" else auto_batch_size(rows)
    steps_per_epoch = -(-rows // batch_size)
    weighting = build_weighting(config, steps_per_epoch)
    watched = weighting.needs_gramian or config.weighting.log_gradients
    module = RankingModule(
        network,
        TaskLosses(
            list(config.tasks.values()),
            (sampling.task, sampling.keep) if sampling else None,
            encoder.targets,
        ),
        weighting,
        SharedGradients(network, config.weighting.gradients) if watched else None,
        encoder.targets,
        config.fit,
        batch_size,
        steps_per_epoch,
    )
    if train.arrays.weights is not None and not train.arrays.weights.any():
        raise DataError(
            f"weights: {config.weights} is 0 on every row of training, so nothing would be trained"
        )
    check_measurable(config.fit.monitor, valid.arrays.labels, encoder.targets, config.fit.monitor_weights)
    best = BestWeights(folder / "model.safetensors", config.fit.monitor, config.fit.patience)
    precision = precision or choose_precision(config.fit.precision, config.fit.accelerator)
    history = History(folder / "history.csv", reporter, config.weighting.log_gradients)
    checkpoints = Checkpoints(folder / "checkpoints", config.fit.checkpoint_minutes)
    trainer = _trainer(config, precision, folder, [history, best, checkpoints])
    newest = newest_checkpoint(folder / "checkpoints", reporter)
    if newest is not None:
        reporter.say(f"continuing from {newest.name}")
    with warnings.catch_warnings():
        # Lightning 2.6 asks torch 2.13 an old question.
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")
        with _stopping(checkpoints), matmul_precision(precision):
            trainer.fit(
                module,
                RankingDataModule(train, valid, batch_size, config.fit.seed, sampling),
                ckpt_path=newest,
                weights_only=True,
            )
    if checkpoints.interrupted:
        # In an epoch that turned out to be the last, whose checkpoint is there.
        raise TrainingInterrupted
    of_tables = sum(table.numel() for table in network.tables())
    return FitResult(
        epochs=trainer.current_epoch,
        best_epoch=best.best_epoch,
        valid=best.best,
        batch_size=batch_size,
        precision=precision.name,
        parameters=sum(p.numel() for p in network.parameters()) - of_tables,
        embedding_parameters=of_tables,
        seconds=history.seconds(),
        rows_per_second=trainer.current_epoch * rows / max(history.seconds(), 1e-3),
    )


def _sampling(config: ProjectConfig, train: EncodedDataset) -> NegativeSampling | None:
    negatives = config.fit.negatives
    if negatives is None:
        return None
    task = list(config.tasks).index(negatives.task)
    return NegativeSampling(train.arrays.labels, task, negatives.keep, RUN_ROWS)


@contextmanager
def _stopping(checkpoints: Checkpoints) -> Iterator[None]:
    """Ctrl-C and a scheduler's SIGTERM let the step end and write a checkpoint; a second one stops at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def stop(_number: int, _frame: FrameType | None) -> None:
        checkpoints.interrupted = True
        restore()

    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        restore()


def prior_logits(targets: tuple[Target, ...]) -> torch.Tensor:
    """(C,) where the outputs start: logit of the base rate; 0 for standardised regression targets.

    Of a multiclass task the logarithm of each rate, of an ordinal one the logits of the rates above each class.
    """
    columns = Columns.of(targets)
    start = torch.zeros(columns.total, dtype=torch.float64)
    for target, own in zip(targets, columns.of_task, strict=True):
        rates = torch.tensor(target.rates, dtype=torch.float64)
        if target.kind == "binary":
            start[own[0]] = torch.logit(torch.tensor(target.mean, dtype=torch.float64))
        elif target.kind == "multiclass":
            start[list(own)] = rates.log()
        elif target.kind == "ordinal":
            start[list(own)] = torch.logit(1 - rates.cumsum(dim=0)[:-1])
    return start.float()


def check_logging(config: ProjectConfig) -> None:
    """Raises ConfigError when TensorBoard is asked for and not installed."""
    if config.fit.tensorboard and find_spec("tensorboard") is None:
        raise ConfigError("fit.tensorboard: it is not installed; pip install 'mtl-rank[tensorboard]'")


def check_accelerator(accelerator: str) -> None:
    """Raises ConfigError for a GPU where torch finds none."""
    if accelerator == "gpu" and not torch.accelerator.is_available():
        raise ConfigError("fit.accelerator: gpu, but torch finds none on this machine; write auto or cpu")


def _trainer(
    config: ProjectConfig, precision: Precision, folder: Path, callbacks: list[L.Callback]
) -> L.Trainer:
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    return L.Trainer(
        accelerator=config.fit.accelerator,
        devices=config.fit.devices,
        strategy="ddp" if config.fit.devices > 1 else "auto",
        precision="bf16-mixed" if precision.name == "bf16" else "32-true",
        max_epochs=config.fit.epochs,
        callbacks=callbacks,
        logger=TensorBoardLogger(folder, name="", version="tensorboard") if config.fit.tensorboard else False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        # The order of the batches belongs to the epoch.
        reload_dataloaders_every_n_epochs=1,
    )
