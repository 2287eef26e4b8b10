"""Scores written back to Feast, offline and online, as rows of a feature view.

A chunk is pushed before it is committed: a job that dies in between pushes it again. That changes nothing that is
read: online a row takes the place of the same row; offline rows with equal keys and event timestamp are one, the
one created last.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import reduce
from typing import Any

import feast
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from mtl_rank.errors import ConfigError, DataError, ScoresError, did_you_mean
from mtl_rank.features.snapshot import EVENT_TIMESTAMP
from mtl_rank.scoring.table import ScoresSchema


@dataclass(frozen=True)
class Push:
    """A feature view that takes scores.

    keys: its join keys. offline: columns of its batch source -> columns of the scores. online: whether the view is
    served online, and then features and keys -> columns of the scores.
    timestamp, created: columns of the source for the time of the scores, and for that of the push if it has one.
    """

    store: feast.FeatureStore
    view: str
    keys: tuple[str, ...]
    offline: Mapping[str, str]
    online: Mapping[str, str] | None
    timestamp: str
    created: str | None

    def write(self, scores: pa.Table, stamps: Mapping[str, str]) -> None:
        """Add a chunk to the source of the view, then to the online store. Rows without a key are left out.

        stamps: run_id and job_id.

        Raises:
            ScoresError: the store does not take the rows.
        """
        now = pd.Timestamp(datetime.now(UTC))
        keyed = [pc.is_valid(scores[self.offline[key]]) for key in self.keys]
        scores = scores.filter(reduce(pc.and_, keyed)) if keyed else scores
        if not scores.num_rows:
            return
        # pandas would make floats of whole numbers that have a null among them.
        frame = scores.to_pandas(integer_object_nulls=True).assign(scored_at=now, **stamps)
        stamped = {self.timestamp: frame[EVENT_TIMESTAMP], **({self.created: now} if self.created else {})}
        try:
            self.store.write_to_offline_store(self.view, _columns(frame, self.offline).assign(**stamped))
            if self.online is not None:
                # Of several rows of a key the last one stays.
                served = _columns(frame, self.online).assign(**stamped)
                self.store.write_to_online_store(self.view, served.sort_values(self.timestamp, kind="stable"))
        except (feast.errors.FeastError, DataError, NotImplementedError, ValueError, OSError) as error:
            raise ScoresError(
                f"--push {self.view}: {_first_line(error)}.\n"
                "What was committed before is safe: run again once this is mended"
            ) from error


def open_push(store: feast.FeatureStore, name: str, schema: ScoresSchema) -> Push:
    """The view `name` as a place for scores of these columns.

    Raises:
        ConfigError: there is no such view, its values are computed, its source cannot be read or has no room for
            what the scores hold, or it wants a column that they lack.
    """
    view = _view(store, name)
    source = view.batch_source
    columns = _source_columns(store, view)
    renamed = dict(source.field_mapping)
    timestamp, created = source.timestamp_field, source.created_timestamp_column or None
    keys = tuple(view.join_keys)
    features = [field.name for field in view.features]
    for wanted in [*keys, *features]:
        if wanted not in schema.columns:
            raise ConfigError(
                f"--push {name}: the view has {wanted!r}, the scores have not; "
                f"{did_you_mean(wanted, schema.columns)}"
            )
    own = [column for column in columns if column not in (timestamp, created)]
    offline = {column: renamed.get(column, column) for column in own}
    for column, wanted in offline.items():
        if wanted not in schema.columns:
            raise ConfigError(
                f"--push {name}: its source has a column {column!r}, the scores have not; "
                f"{did_you_mean(wanted, schema.columns)}"
            )
    lacking = [wanted for wanted in [*keys, *features] if wanted not in offline.values()]
    lacking += [stamp for stamp in (timestamp, created) if stamp is not None and stamp not in columns]
    if lacking:
        raise ConfigError(f"--push {name}: the source of the view has no column {lacking[0]!r}")
    online = {wanted: wanted for wanted in [*keys, *features]} if view.online else None
    return Push(store, name, keys, offline, online, timestamp, created)


def _view(store: feast.FeatureStore, name: str) -> Any:
    known = {view.name: view for view in store.list_all_feature_views()}
    if name not in known:
        raise ConfigError(f"--push {name}: no such feature view; {did_you_mean(name, known)}")
    view = known[name]
    if isinstance(view, feast.OnDemandFeatureView):
        raise ConfigError(f"--push {name}: an on-demand view computes its values; name one with a source")
    if getattr(view, "batch_source", None) is None:
        raise ConfigError(f"--push {name}: the view has no batch source that could take rows")
    return view


def _source_columns(store: feast.FeatureStore, view: Any) -> list[str]:
    try:
        found = store.provider.get_table_column_names_and_types_from_data_source(
            store.config, view.batch_source
        )
        return [column for column, _ in found]
    except (DataError, OSError, ValueError, NotImplementedError, feast.errors.FeastError) as error:
        raise ConfigError(
            f"--push {view.name}: its source cannot be read: {_first_line(error)}.\n"
            "The first time, write a source without rows that has the columns of the view"
        ) from None


def _columns(frame: pd.DataFrame, names: Mapping[str, str]) -> pd.DataFrame:
    return pd.DataFrame({column: frame[name] for column, name in names.items()})


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
