"""Predictor: a loaded run that turns retrieved tables into predictions.

Evaluation, scoring and serving share it, so they cannot drift apart.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from mtl_rank.calibration import Calibration
from mtl_rank.config import ProjectConfig
from mtl_rank.data.classes import class_probabilities, expected_class
from mtl_rank.data.datamodule import to_batch
from mtl_rank.data.encoded import take
from mtl_rank.data.encoder import EncodedRows, FeatureEncoder
from mtl_rank.data.labels import decode_outputs
from mtl_rank.errors import RunError
from mtl_rank.nn.columns import Columns
from mtl_rank.nn.network import RankingNetwork
from mtl_rank.nn.zoo import build_network
from mtl_rank.runs import Run
from mtl_rank.training.precision import Precision, cpu_has_bf16, load_precision, matmul_precision

Doubles = npt.NDArray[np.float64]

# Every forward pass has this many rows, the last one filled up: then a row's score is the same to the last
# bit in whatever chunk it comes, as the shape of a matrix product decides the order of its sums.
BLOCK_ROWS = 2_048
_EXACT = Precision("fp32")


def precision_of(run: Run) -> Precision:
    """What a run was trained in; fp32 where that was bf16 and the processor has no instructions for it.

    It does not depend on the number of rows: a score must be the same to the last bit in any job.
    """
    trained = load_precision(run.info().get("precision")) or _EXACT
    if trained.name == "bf16" and not cpu_has_bf16():
        return Precision("fp32", trained.matmul)
    return trained


@dataclass(frozen=True)
class Predictor:
    """A run in memory, ready to predict.

    precision: of the products, by default as the run was trained: what is evaluated is what is scored. Under bf16
        autocast multiplies in bfloat16; logits stay fp32.
    """

    run: Run
    config: ProjectConfig
    encoder: FeatureEncoder
    network: RankingNetwork
    calibration: Calibration
    precision: Precision = _EXACT

    @staticmethod
    def load(run: Run, precision: Precision | None = None) -> "Predictor":
        """Load a run; nothing in it is executed. Raises RunError when files are missing or damaged."""
        config = run.config()
        encoder = FeatureEncoder.load(run.encoder_folder)
        columns = Columns.of(config.tasks.values())
        network = build_network(config.model, encoder.layout, torch.zeros(columns.total), config.tasks)
        try:
            network.load_state_dict(load_file(run.weights))
        except (OSError, SafetensorError, RuntimeError) as error:
            raise RunError(
                f"run {run.id}: {run.weights} cannot be loaded: {str(error).splitlines()[0]}"
            ) from None
        calibration = Calibration.load(run.calibration, list(config.tasks))
        return Predictor(run, config, encoder, network.eval(), calibration, precision or precision_of(run))

    @property
    def outputs(self) -> list[str]:
        """Names of the columns of `predict`: the tasks and their classes, then the chain products."""
        return list(self.config.outputs())

    def predict(self, table: pl.DataFrame) -> dict[str, Doubles]:
        """Predictions in the unit of each label, float64 (N,) each: probabilities or values per task, those of its
        classes if it has any, and for each task with a parent its product along the chain, defined on every row.

        Raises DataError for a table that the encoder cannot read.
        """
        return self.predict_encoded(self.encoder.encode(table, with_labels=False))

    def predict_encoded(self, rows: EncodedRows) -> dict[str, Doubles]:
        """`predict` for rows that were encoded without labels, perhaps in another thread."""
        return self.outputs_of(self.calibrated(self.logits(rows)))

    def calibrated(self, logits: Doubles) -> Doubles:
        """Logits after the calibration of the run. Shape: (N, C) -> (N, C)"""
        return self.calibration(logits, list(self.config.tasks))

    def outputs_of(self, logits: Doubles) -> dict[str, Doubles]:
        """The columns of `predict` from logits (N, C).

        Given one logit per task, (N, T), tasks with classes are left out.
        """
        targets = self.encoder.targets
        values, names = decode_outputs(logits, targets), self.config.class_columns()
        found: dict[str, Doubles] = {}
        for i, (target, own) in enumerate(zip(targets, Columns.of(targets).of_task, strict=True)):
            if not target.classes:
                found[target.name] = values[:, i]
            elif own[-1] < logits.shape[1]:
                p = class_probabilities(target.kind, logits[:, own])
                if target.kind == "ordinal":
                    found[target.name] = expected_class(p, target.classes)
                found |= zip(names[target.name], p.T, strict=True)
        for product, chain in self.config.products().items():
            found[product] = np.prod([found[name] for name in chain], axis=0)
        return found

    def logits(self, rows: EncodedRows) -> Doubles:
        """The network's outputs for encoded rows, float64 (N, C)."""
        if not len(rows.ids):
            return np.empty((0, Columns.of(self.encoder.targets).total))
        return np.concatenate([*self._logits(rows)])

    @torch.inference_mode()
    def _logits(self, rows: EncodedRows) -> Iterator[Doubles]:
        for start in range(0, len(rows.ids), BLOCK_ROWS):
            index = np.arange(start, start + BLOCK_ROWS)
            count = min(BLOCK_ROWS, len(rows.ids) - start)
            block = take(rows, np.minimum(index, len(rows.ids) - 1))
            autocast = torch.autocast("cpu", torch.bfloat16, enabled=self.precision.name == "bf16")
            with matmul_precision(self.precision), autocast:
                logits = self.network(to_batch(block))
            yield logits.numpy()[:count].astype(np.float64)
