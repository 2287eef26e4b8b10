"""DuckDB files that a job would read and write at once, which DuckDB does not do in one process.

The retrieval keeps the files of its sources attached while chunks are written: the writer would wait for its own
process, for ever. What is read before or between two writes, such as candidates, may lie in the file.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import feast

from mtl_rank.errors import ConfigError
from mtl_rank.features.duckdb_source import DuckDBSource
from mtl_rank.features.repository import FeatureRepository
from mtl_rank.scoring.table import ScoresTarget


def refuse_shared_files(repository: FeatureRepository, target: object, push: str | None) -> None:
    """Raise ConfigError when scores are to go to a DuckDB file that a view of the feature service reads.

    push: a feature view that takes scores as well.
    """
    readers = {
        file: view.name for view in _views(repository) if (file := _file(repository, view)) is not None
    }
    if isinstance(target, ScoresTarget):
        _refuse(f"--to {target.path}", target.path.resolve(), readers)
    if push is not None:
        pushed = next((view for view in repository.store.list_all_feature_views() if view.name == push), None)
        if (file := _file(repository, pushed)) is not None:
            _refuse(f"--push {push}: its source is in {file}", file, readers)


def _refuse(option: str, file: Path, readers: dict[Path, str]) -> None:
    if file in readers:
        raise ConfigError(
            f"{option}: feature view {readers[file]!r} reads this file while scores are written, and DuckDB cannot "
            "have it open for both.\nName another file"
        )


def _views(repository: FeatureRepository) -> Iterator[Any]:
    """The views that the service reads, those that an on-demand view computes from included."""
    store = repository.store
    for projection in repository.service.feature_view_projections:
        view = store.registry.get_any_feature_view(projection.name, store.project)
        yield view
        if isinstance(view, feast.OnDemandFeatureView):
            for source in view.source_feature_view_projections.values():
                yield store.registry.get_any_feature_view(source.name, store.project)


def _file(repository: FeatureRepository, view: Any) -> Path | None:
    """The DuckDB file of a view, whatever links lead to it; None = it has none."""
    source = getattr(view, "batch_source", None)
    return (repository.path / source.path).resolve() if isinstance(source, DuckDBSource) else None
