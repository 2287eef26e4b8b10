"""The latest features from Feast's online store, as a table like that of a retrieval.

Feast serves values of any age; here a view's ttl holds as it does offline.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import feast
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from feast.types import from_feast_to_pyarrow_type

from mtl_rank.errors import ConfigError, DataError
from mtl_rank.features.repository import FeatureRepository
from mtl_rank.features.retrieval import read_rows_of
from mtl_rank.features.snapshot import EVENT_TIMESTAMP, Snapshot

REQUEST_ROWS = 4_096
"""Rows in one request to the online store; of each key in it Feast reads the features once."""

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class _View:
    """One view of the service. columns: in a retrieved table -> type. sources: of an on-demand view, else itself."""

    name: str
    columns: Mapping[str, pa.DataType]
    ttl: timedelta | None
    sources: tuple[str, ...]


def retrieve_online(
    repository: FeatureRepository, snapshot: Snapshot, first_row: int = 0, last_row: int | None = None
) -> pa.RecordBatchReader:
    """The entity rows with the latest features of their keys, in the order of the snapshot.

    Columns and types: as `retrieve` gives them. last_row: the first row that is not wanted; None = all.
    """
    rows = read_rows_of(snapshot, first_row, last_row, batch_rows=REQUEST_ROWS)
    schema = read_online(repository, rows.schema.empty_table()).schema

    def found() -> Iterator[pa.RecordBatch]:
        for batch in rows:
            yield from read_online(repository, pa.Table.from_batches([batch])).combine_chunks().to_batches()

    return pa.RecordBatchReader.from_batches(schema, found())


def read_online(repository: FeatureRepository, rows: pa.Table) -> pa.Table:
    """Rows with the latest features of their keys.

    A value is missing where the key is not in the store, and where it was older at the row's event timestamp than
    the view's ttl allows. What an on-demand view computes is missing where a view that it reads is too old.

    Raises:
        DataError: the online store cannot be read.
        ConfigError: the service has views that are not served online.
    """
    views = _views(repository)
    table, times = _request(repository, rows, views)
    too_old = {
        view.name: _too_old(times[view.name], rows[EVENT_TIMESTAMP], view.ttl)
        for view in views
        if view.name in times
    }
    for view in views:
        masks = [too_old[source] for source in view.sources if source in too_old]
        mask = pa.array(np.logical_or.reduce(masks)) if masks else None
        for name, kind in view.columns.items():
            values = pa.array(table[name], kind)
            if mask is not None:
                values = pc.if_else(mask, pa.scalar(None, kind), values)
            rows = rows.append_column(name, values)
    return rows


def _views(repository: FeatureRepository) -> list[_View]:
    store, found = repository.store, []
    for projection in repository.service.feature_view_projections:
        view = store.registry.get_any_feature_view(projection.name, store.project)
        name = projection.name_to_use()
        columns = {
            f"{name}__{field.name}": from_feast_to_pyarrow_type(field.dtype) for field in projection.features
        }
        if isinstance(view, feast.OnDemandFeatureView):
            sources = tuple(source.name_to_use() for source in view.source_feature_view_projections.values())
            found.append(_View(name, columns, None, sources))
        else:
            if not view.online:
                raise ConfigError(f"--features online: view {name!r} is not served online (online=False)")
            found.append(_View(name, columns, view.ttl or None, (name,)))
    return found


def _request(
    repository: FeatureRepository, rows: pa.Table, views: list[_View]
) -> tuple[dict[str, list[Any]], dict[str, npt.NDArray[np.int64]]]:
    """By column the values; by stored view the second of the newest of its values, 0 where there is none."""
    names = [name for view in views for name in view.columns]
    stored = [view for view in views if view.sources == (view.name,)]
    if rows.num_rows == 0 or not names:
        return {name: [] for name in names}, {view.name: np.zeros(0, np.int64) for view in stored}
    schema = repository.schema
    keys = dict.fromkeys([*schema.join_keys, *schema.request_columns])
    try:
        response = repository.store.get_online_features(
            features=repository.service,
            entity_rows={key: rows[key].to_pylist() for key in keys},
            full_feature_names=True,
        )
        found = response.to_dict(include_event_timestamps=True)
    except (feast.errors.FeastError, ValueError, TypeError, OSError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(f"--features online: the online store cannot be read: {reason}") from error
    times = {}
    for view in stored:
        seconds = [
            np.array(found[f"{name}__ts"], np.int64) for name in view.columns if f"{name}__ts" in found
        ]
        times[view.name] = np.maximum.reduce(seconds) if seconds else np.zeros(rows.num_rows, np.int64)
    return {name: found[name] for name in names}, times


def _too_old(seconds: npt.NDArray[np.int64], at: pa.ChunkedArray, ttl: timedelta | None) -> Mask:
    """Where values of these seconds had passed their ttl, both bounds included as in Feast's joins."""
    if ttl is None:
        return np.zeros(len(seconds), np.bool_)
    moment = at.cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()).to_numpy()
    old: Mask = seconds + int(ttl.total_seconds()) < moment // 1_000_000
    return old
