"""The latest features from Feast's online store, as a table like that of a retrieval.

Feast serves values of any age; here a view's ttl holds as it does offline.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import feast
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from feast.feature_view_projection import FeatureViewProjection
from feast.types import from_feast_to_pyarrow_type

from mtl_rank.errors import ConfigError, DataError
from mtl_rank.features.repository import FeatureRepository
from mtl_rank.features.retrieval import read_rows_of
from mtl_rank.features.retrieval_job import as_declared, with_on_demand
from mtl_rank.features.snapshot import EVENT_TIMESTAMP, Snapshot

REQUEST_ROWS = 4_096
"""Rows in one request to the online store; of each key in it Feast reads the features once."""

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class _View:
    """One stored view. columns: in a retrieved table -> type. keys: its join keys, as the rows call them."""

    name: str
    columns: Mapping[str, pa.DataType]
    ttl: timedelta | None
    keys: tuple[str, ...]


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

    A value is missing where a key is null or not in the store, and where it was older at the row's event timestamp
    than the view's ttl allows. On-demand views compute from these values, as they do offline.

    Raises:
        DataError: the online store cannot be read, or the function of an on-demand view fails.
        ConfigError: the service has views that are not served online.
    """
    projections = repository.service.feature_view_projections
    stored, computed = _views(repository)
    sources = _sources(repository, computed)
    if any(projection.name_alias or projection.join_key_map for projection in projections):
        # Only by the service does Feast know a view by another name, or by other keys.
        found = _latest(repository, rows, stored, repository.service) | _latest(repository, rows, sources)
    else:
        found = _latest(repository, rows, _merged([*stored, *sources]))
    found |= _computed(rows, {name: found[name] for view in sources for name in view.columns}, computed)
    for projection in projections:
        for field in projection.features:
            name = f"{projection.name_to_use()}__{field.name}"
            rows = rows.append_column(name, found[name])
    return rows


def _views(repository: FeatureRepository) -> tuple[list[_View], list[feast.OnDemandFeatureView]]:
    """The stored views of the service and its on-demand ones, each as the service has it."""
    store = repository.store
    stored: list[_View] = []
    computed: list[feast.OnDemandFeatureView] = []
    for projection in repository.service.feature_view_projections:
        view = store.registry.get_any_feature_view(projection.name, store.project)
        if isinstance(view, feast.OnDemandFeatureView):
            computed.append(view.with_projection(projection))
        else:
            stored.append(_stored(view, projection))
    return stored, computed


def _sources(repository: FeatureRepository, computed: list[feast.OnDemandFeatureView]) -> list[_View]:
    """The stored views that on-demand ones read, by the names that these know."""
    store = repository.store
    return _merged(
        [
            _stored(store.registry.get_any_feature_view(source.name, store.project), source)
            for view in computed
            for source in view.source_feature_view_projections.values()
        ]
    )


def _stored(view: feast.FeatureView, projection: FeatureViewProjection) -> _View:
    name = projection.name_to_use()
    if not view.online:
        raise ConfigError(f"--features online: view {name!r} is not served online (online=False)")
    columns = {
        f"{name}__{field.name}": from_feast_to_pyarrow_type(field.dtype) for field in projection.features
    }
    keys = tuple(projection.join_key_map.get(key, key) for key in view.join_keys)
    return _View(name, columns, view.ttl or None, keys)


def _merged(views: list[_View]) -> list[_View]:
    """Each view once, with the columns that any of its mentions has."""
    found: dict[str, _View] = {}
    for view in views:
        before = found.get(view.name, view)
        found[view.name] = replace(view, columns={**before.columns, **view.columns})
    return list(found.values())


def _latest(
    repository: FeatureRepository,
    rows: pa.Table,
    views: list[_View],
    service: feast.FeatureService | None = None,
) -> dict[str, pa.Array]:
    """By column the values of some views, null where they do not count.

    service: what Feast is asked for; None = the columns of the views by their names.
    """
    names = [name for view in views for name in view.columns]
    if rows.num_rows == 0 or not names:
        return {name: pa.array([], kind) for view in views for name, kind in view.columns.items()}
    schema = repository.schema
    keys = dict.fromkeys([*schema.join_keys, *schema.request_columns])
    if service is None:
        keys = dict.fromkeys(key for view in views for key in view.keys)
    try:
        response = repository.store.get_online_features(
            features=service or [name.replace("__", ":", 1) for name in names],
            entity_rows={key: _without_nulls(rows[key]) for key in keys},
            full_feature_names=True,
        )
        found = response.to_dict(include_event_timestamps=True)
    except (feast.errors.FeastError, ValueError, TypeError, OSError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(f"--features online: the online store cannot be read: {reason}") from error
    values = {}
    for view in views:
        # The second of the newest of its values, 0 where there is none.
        seconds = np.maximum.reduce([np.array(found[f"{name}__ts"], np.int64) for name in view.columns])
        nothing = _too_old(seconds, rows[EVENT_TIMESTAMP], view.ttl)
        for key in view.keys:
            nothing |= rows[key].is_null().to_numpy()
        for name, kind in view.columns.items():
            values[name] = pc.if_else(pa.array(nothing), pa.scalar(None, kind), pa.array(found[name], kind))
    return values


def _without_nulls(column: pa.ChunkedArray) -> list[Any]:
    """The values of a key, of which Feast can take no null: there another one stands, whose features are not kept."""
    if not column.null_count:
        values: list[Any] = column.to_pylist()
        return values
    known = column.drop_null()
    stand_in = known[0] if len(known) else pa.array(["0"]).cast(column.type)[0]
    filled: list[Any] = column.fill_null(stand_in).to_pylist()
    return filled


def _computed(
    rows: pa.Table, inputs: Mapping[str, pa.Array], views: list[feast.OnDemandFeatureView]
) -> dict[str, pa.ChunkedArray]:
    """By column what on-demand views make of the rows and of the features that they read."""
    schema = pa.schema(
        pa.field(f"{view.projection.name_to_use()}__{field.name}", from_feast_to_pyarrow_type(field.dtype))
        for view in views
        for field in view.projection.features
    )
    if rows.num_rows == 0 or not views:
        return {field.name: pa.chunked_array([], field.type) for field in schema}
    for name, values in inputs.items():
        rows = rows.append_column(name, values)
    table = as_declared(with_on_demand(rows, views, full_feature_names=True), schema)
    return dict(zip(table.column_names, table.columns, strict=True))


def _too_old(seconds: npt.NDArray[np.int64], at: pa.ChunkedArray, ttl: timedelta | None) -> Mask:
    """Where values of these seconds had passed their ttl, both bounds included as in Feast's joins."""
    if ttl is None:
        return np.zeros(len(seconds), np.bool_)
    moment = at.cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()).to_numpy()
    old: Mask = seconds + int(ttl.total_seconds()) < moment // 1_000_000
    return old
