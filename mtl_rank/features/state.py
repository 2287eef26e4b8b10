"""What the features of a service depend on, so that prepared data is never reused after a change."""

import glob
import hashlib
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlparse

import feast
from feast.data_source import DataSource
from feast.infra.offline_stores.file_source import FileSource
from google.protobuf.message import Message  # type: ignore[import-untyped,unused-ignore]

from mtl_rank.features.definitions import fingerprint, service_definitions
from mtl_rank.features.duckdb_source import DuckDBSource, reads_its_file_alone
from mtl_rank.features.parquet import APPENDED, is_glob
from mtl_rank.features.repository import FeatureRepository


def source_state(repository: FeatureRepository) -> list[str] | None:
    """One line per definition and per source file of the service; equal lists mean equal features.

    None when a source is elsewhere (a warehouse, an object store, what a query in DuckDB reads beside its file), where
    a change cannot be seen from here.
    """
    # The views alone would not tell which of their keys is which column of the rows.
    lines = [f"service {fingerprint(service_definitions(repository))}"]
    for view in _views(repository):
        lines.append(f"view {view.name} {_digest(view)}")
        source = getattr(view, "batch_source", None)
        if source is None:
            continue
        files = _files(source, repository.path)
        if files is None:
            return None
        lines += files
    return sorted(set(lines))


def _digest(view: feast.base_feature_view.BaseFeatureView) -> str:
    """Of the specification, without `meta`, which changes with every `feast apply`, its own and that of sources."""
    spec = view.to_proto().spec
    _clear_meta(spec)
    if isinstance(view, feast.OnDemandFeatureView):
        for function in (spec.user_defined_function, spec.feature_transformation.user_defined_function):
            # A pickled function names its globals in the order of a set, another one in each process.
            if function.body_text:
                function.ClearField("body")
    return hashlib.sha256(spec.SerializeToString(deterministic=True)).hexdigest()


def _clear_meta(message: Message) -> None:
    for field, value in message.ListFields():
        if field.name == "meta":
            message.ClearField("meta")
        elif isinstance(value, Message):
            _clear_meta(value)
        else:
            for part in value.values() if isinstance(value, Mapping) else value if field.is_repeated else ():
                if isinstance(part, Message):
                    _clear_meta(part)


def _views(repository: FeatureRepository) -> list[feast.base_feature_view.BaseFeatureView]:
    store = repository.store
    found = {}
    for projection in repository.service.feature_view_projections:
        view = store.registry.get_any_feature_view(projection.name, store.project)
        found[view.name] = view
        for source in getattr(view, "source_feature_view_projections", {}).values():
            found[source.name] = store.registry.get_any_feature_view(source.name, store.project)
    return list(found.values())


def _files(source: DataSource, base: Path) -> list[str] | None:
    """Name, size and time of change of every file of a source; None for one that is not on this machine."""
    if not isinstance(source, FileSource | DuckDBSource) or urlparse(str(source.path)).netloc:
        return None
    if isinstance(source, DuckDBSource) and not reads_its_file_alone(source, base):
        return None
    path = base / str(source.path)
    if path.is_dir():
        # Unlike rglob, this passes over folders that vanish meanwhile.
        files = [Path(folder, name) for folder, _, names in os.walk(path) for name in names]
    elif path.exists() or not is_glob(str(source.path)):
        # Beside a parquet file are rows that were appended, beside a database its last changes, if it was not closed.
        files = [path, path.with_name(path.name + ".wal"), *Path(f"{path}{APPENDED}").glob("*.parquet")]
    else:
        files = [Path(name) for name in glob.glob(str(path), recursive=True)]  # noqa: PTH207, an absolute pattern
    found = []
    for file in sorted(files):
        # A database's last changes are gone from beside it as soon as it is closed.
        with suppress(FileNotFoundError):
            stat = file.stat()
            found.append(f"file {file} {stat.st_size} {stat.st_mtime_ns}")
    return found
