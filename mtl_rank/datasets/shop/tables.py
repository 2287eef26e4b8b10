"""The columns of every file of the shop, and how the files are written."""

from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mtl_rank.datasets.shop.month import TIMESTAMP

_ROW_GROUP = 131_072
_KEY, _INT, _SMALL, _FLOAT = pa.int64(), pa.int64(), pa.int8(), pa.float32()

SCHEMAS: dict[str, pa.Schema] = {
    "impressions": pa.schema(
        {
            "impression_id": _KEY,
            "request_id": _KEY,
            "user_id": _KEY,
            "item_id": _KEY,
            "category_id": _KEY,
            "event_timestamp": TIMESTAMP,
            "position": _SMALL,
            "hour": _SMALL,
            "clicked": _SMALL,
            "purchased": _SMALL,
            "dwell_seconds": pa.float64(),
        }
    ),
    "truth": pa.schema(
        {"impression_id": _KEY, "ctr": pa.float64(), "cvr": pa.float64(), "dwell": pa.float64()}
    ),
    "candidates": pa.schema(
        {"user_id": _KEY, "item_id": _KEY, "category_id": _KEY, "event_timestamp": TIMESTAMP, "hour": _SMALL}
    ),
    "user_profile": pa.schema(
        {"user_id": _KEY, "event_timestamp": TIMESTAMP, "created": TIMESTAMP}
        | dict.fromkeys(
            ["age_band", "city_tier", "device", "income_band", "loyalty_tier", "coupon_use"], _INT
        )
        | {"price_preference": _FLOAT}
    ),
    "item_profile": pa.schema(
        {
            "item_id": _KEY,
            "event_timestamp": TIMESTAMP,
            "created": TIMESTAMP,
            "subcategory": _INT,
            "brand": _INT,
            "tags": pa.list_(_INT),
            "price": _FLOAT,
            "price_level": _FLOAT,
            "discount": _FLOAT,
            "rating": _FLOAT,
            "reviews": _INT,
        }
    ),
    "user_stats": pa.schema(
        {"user_id": _KEY, "event_timestamp": TIMESTAMP}
        | dict.fromkeys(["impressions", "clicks", "purchases", "clicks_7d"], _INT)
        | dict.fromkeys(["click_rate", "purchase_rate", "mean_dwell", "usual_price_level"], _FLOAT)
    ),
    "item_stats": pa.schema(
        {"item_id": _KEY, "event_timestamp": TIMESTAMP}
        | dict.fromkeys(["impressions_1d", "clicks_1d", "impressions_7d", "clicks_7d"], _INT)
        | dict.fromkeys(["click_rate_7d", "click_rate", "purchase_rate", "mean_dwell"], _FLOAT)
    ),
    "user_category": pa.schema(
        {"user_id": _KEY, "category_id": _KEY, "event_timestamp": TIMESTAMP}
        | dict.fromkeys(["stated_interest", "impressions", "clicks", "purchases", "clicks_7d"], _INT)
        | {"click_rate": _FLOAT}
    ),
    "user_history": pa.schema(
        {"user_id": _KEY, "event_timestamp": TIMESTAMP, "clicked_items": pa.list_(_INT)}
    ),
}


def table(name: str, **columns: pa.Array | NDArray[np.generic]) -> pa.Table:
    """The columns as a table of the named file, cast to its types; NaN becomes null."""
    schema = SCHEMAS[name]
    arrays = [pa.array(columns.pop(field.name), from_pandas=True).cast(field.type) for field in schema]
    if columns:
        raise TypeError(f"{name} has no column {', '.join(columns)}")
    return pa.Table.from_arrays(arrays, schema=schema)


class TableFiles:
    """One parquet file per table in `folder`, fed piece by piece; equal pieces give equal bytes.

    Rows wait in memory until a row group is full, so the cut into pieces leaves no trace in the files.
    """

    def __init__(self, folder: Path) -> None:
        self.paths = {name: folder / f"{name}.parquet" for name in SCHEMAS}
        self._waiting: dict[str, list[pa.Table]] = {name: [] for name in SCHEMAS}
        self._writers = {
            name: pq.ParquetWriter(path, SCHEMAS[name], compression="zstd", compression_level=6)
            for name, path in self.paths.items()
        }

    def append(self, name: str, piece: pa.Table) -> None:
        """Add rows to the named table."""
        waiting = self._waiting[name]
        waiting.append(piece)
        if sum(len(part) for part in waiting) >= _ROW_GROUP:
            rows = pa.concat_tables(waiting)
            full = len(rows) // _ROW_GROUP * _ROW_GROUP
            self._write(name, rows.slice(0, full))
            waiting[:] = [rows.slice(full)]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name, writer in self._writers.items():
            if error is None:
                self._write(name, pa.concat_tables(self._waiting[name]))
            writer.close()

    def _write(self, name: str, rows: pa.Table) -> None:
        self._writers[name].write_table(rows.combine_chunks(), row_group_size=_ROW_GROUP)
