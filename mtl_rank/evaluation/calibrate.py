"""Fits the calibration of a run on its validation rows."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from mtl_rank.calibration import FITS, Calibration, Map, choose
from mtl_rank.data.encoded import EncodedDataset
from mtl_rank.errors import DataError
from mtl_rank.predict import BLOCK_ROWS, Doubles, Predictor
from mtl_rank.progress import Reporter


def fit_calibration(predictor: Predictor, valid: EncodedDataset, reporter: Reporter) -> dict[str, Any]:
    """Fit the configured maps on the validation rows and store them in the run.

    Returns for each task with a method what was done: its method, the rows, for `auto` the losses it chose by.
    Raises DataError when a task has a single class among the validation rows.
    """
    config = predictor.config
    methods = {name: config.calibration_of(name) for name in config.tasks}
    wanted = {name: method for name, method in methods.items() if method != "none"}
    if not wanted:
        return {}
    reporter.stage("calibrate", valid.rows)
    logits = np.concatenate([*_logits(predictor, valid)])
    labels = np.asarray(valid.arrays.labels, np.float64)
    maps: dict[str, Map] = {}
    done: dict[str, Any] = {}
    for i, name in enumerate(config.tasks):
        if name not in wanted:
            continue
        defined = ~np.isnan(labels[:, i])
        z, y = logits[defined, i], labels[defined, i]
        if not 0 < y.sum() < len(y):
            raise DataError(
                f"calibration: of the {len(y)} validation rows of task {name} all have one label; move split.valid"
            )
        found, losses = choose(z, y) if wanted[name] == "auto" else (FITS[wanted[name]](z, y), {})
        done[name] = {"method": found.method if found else "none", "rows": len(y)}
        if losses:
            done[name]["cross_validated_log_loss"] = losses
        if found is not None:
            maps[name] = found
    Calibration(maps).save(predictor.run.calibration)
    return done


def _logits(predictor: Predictor, valid: EncodedDataset) -> Iterator[Doubles]:
    for rows in valid.slices(16 * BLOCK_ROWS):
        yield predictor.logits(rows)
