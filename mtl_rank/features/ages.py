"""How many entity rows find a feature row in each view, and how old it is by then."""

from dataclasses import dataclass

import polars as pl

from mtl_rank.features.offline_store import DuckDBAsofOfflineStoreConfig
from mtl_rank.features.repository import FeatureRepository
from mtl_rank.features.retrieval import rows_sql
from mtl_rank.features.snapshot import EVENT_TIMESTAMP, ROW_NUMBER, Snapshot
from mtl_rank.features.sql import quote

SAMPLE_ROWS = 100_000
_LABEL = "feature view "


@dataclass(frozen=True)
class Matches:
    """Of one view. matched: the share of rows with a feature row at or before their time that is not too old.

    median_age, tenth_age: seconds from the feature row to the entity row, the second exceeded by a tenth of the
    matched rows; None without a match.
    """

    matched: float
    median_age: float | None
    tenth_age: float | None


def match_ages(repository: FeatureRepository, snapshot: Snapshot) -> dict[str, Matches]:
    """By view, on at most 100,000 evenly spread rows; {} for a store that is not DuckDBAsofOfflineStore.

    Raises DataError when rows and sources do not fit.
    """
    store = repository.store
    if not isinstance(store.config.offline_store, DuckDBAsofOfflineStoreConfig):
        return {}
    stride = -(-snapshot.rows // SAMPLE_ROWS)
    rows = f"{rows_sql(snapshot)} AND {quote(ROW_NUMBER)} % {stride} = 0"
    job = store.get_historical_features(entity_df=rows, features=repository.service, full_feature_names=True)
    times = pl.concat([pl.DataFrame(pl.from_arrow(batch)) for batch in job.match_times()])
    labels = [column for column in times.columns if column.startswith(_LABEL)]
    return {label.removeprefix(_LABEL).strip("'\""): _matches(times, label) for label in labels}


def _matches(times: pl.DataFrame, label: str) -> Matches:
    matched = pl.col(label).cast(pl.Datetime("us", "UTC"))
    age = (pl.col(EVENT_TIMESTAMP) - matched).dt.total_microseconds() / 1e6
    found = times.select(
        share=matched.is_not_null().mean(), median=age.median(), tenth=age.quantile(0.9, "higher")
    ).row(0)
    return Matches(*found)
