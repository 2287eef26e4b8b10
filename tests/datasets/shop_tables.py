"""The tables of a simulated shop."""

from pathlib import Path

import polars as pl

CHECKOUT = Path(__file__).parents[2]
KEYS = {
    "user_profile": ["user_id"],
    "item_profile": ["item_id"],
    "user_stats": ["user_id"],
    "item_stats": ["item_id"],
    "user_category": ["user_id", "category_id"],
    "user_history": ["user_id"],
}
TABLES = {*KEYS, "impressions", "candidates", "truth"}


def read_shop(folder: Path) -> dict[str, pl.DataFrame]:
    return {path.stem: pl.read_parquet(path) for path in folder.glob("*.parquet")}
