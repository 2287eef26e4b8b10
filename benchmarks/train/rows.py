"""Reads the encoded work load with numpy alone: peers live in an environment without mtl_rank."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Rows:
    """ids: int32 (N, F), each column counting through its own part of one table; sizes: rows of each part.

    dense: float32 (N, D). labels: float32 (N, T), NaN = not observed.
    """

    ids: np.ndarray
    dense: np.ndarray
    labels: np.ndarray
    sizes: dict[str, int]

    @staticmethod
    def open(folder: Path) -> "Rows":
        spec = json.loads((folder / "spec.json").read_text(encoding="utf-8"))

        def mapped(name: str, dtype: str, width: int) -> np.ndarray:
            return np.memmap(folder / "train" / f"{name}.bin", dtype, "r", shape=(spec["rows"], width))

        return Rows(
            ids=mapped("ids", "<i4", len(spec["sizes"])),
            dense=mapped("dense", "<f4", len(spec["dense"])),
            labels=mapped("labels", "<f4", len(spec["tasks"])),
            sizes=spec["sizes"],
        )

    def columns(self) -> dict[str, Any]:
        """One array per input, as peers take them: ids from 0 in every column, and the numbers."""
        offsets = np.cumsum([0, *self.sizes.values()])[:-1]
        ids = {name: self.ids[:, i] - offsets[i] for i, name in enumerate(self.sizes)}
        dense = {f"number_{i}": np.ascontiguousarray(column) for i, column in enumerate(self.dense.T)}
        return {**ids, **dense}
