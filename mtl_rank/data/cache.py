"""Prepared data by the fingerprint of all it was made from: made once, reused while nothing changed."""

import fcntl
import hashlib
import json
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from mtl_rank.config import ProjectConfig
from mtl_rank.data.encoded import MANIFEST, EncodedDataset
from mtl_rank.data.encoder import FORMAT_VERSION, FeatureEncoder
from mtl_rank.data.prepare import encode_splits, example_columns
from mtl_rank.errors import DataError, MtlRankError
from mtl_rank.features.repository import FeatureRepository
from mtl_rank.features.snapshot import Snapshot, snapshot_rows
from mtl_rank.features.state import source_state
from mtl_rank.progress import Reporter

CACHE = "cache"
_LOCKS = "locks"
_PARTIAL = ".partial"
# What an error costs and weighs is a matter of training.
_OF_TRAINING = {"loss", "mean_over", "weight", "inverse_propensity"}


@dataclass(frozen=True)
class Prepared:
    """What training needs. fingerprint: the name of the cache entry."""

    fingerprint: str
    encoder: FeatureEncoder
    train: EncodedDataset
    valid: EncodedDataset


@dataclass(frozen=True)
class CacheEntry:
    """One prepared data set on disk. size: bytes; rows of a split: None = damaged."""

    fingerprint: str
    size: int
    rows: dict[str, int | None]
    used_at: datetime


def prepared(
    config: ProjectConfig, project: Path, repository: FeatureRepository, reporter: Reporter
) -> Prepared:
    """The training and validation windows, encoded: from the cache when nothing they depend on has changed.

    A killed preparation leaves nothing that is taken for a finished one; two at once, the second waits and
    then finds the work done. Rows of the test window are never read.

    Raises MtlRankError for input that cannot be trained on.
    """
    cache = project / CACHE
    try:
        (cache / _LOCKS).mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise DataError(f"{cache}: prepared data needs a folder of this name, and a file has it") from None
    _sweep(cache)
    with _scratch(cache) as scratch:
        snapshot = snapshot_rows(
            config.examples,
            project,
            list(dict.fromkeys([*example_columns(config, repository), *filter(None, [config.weights])])),
            scratch / "examples.parquet",
            before=config.split.test,
        )
        fingerprint = _fingerprint(config, repository, snapshot)
        folder = cache / fingerprint
        with _locked(cache / _LOCKS / fingerprint, reporter):
            if folder.is_dir():
                found = _open(folder, config, reporter)
                if found is not None:
                    reporter.say(f"prepared data {fingerprint} reused")
                    (folder / "used").touch()
                    return found
            partial = folder.with_name(fingerprint + _PARTIAL)
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            try:
                encode_splits(config, repository, snapshot, partial, reporter)
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise
            (partial / "used").touch()
            partial.rename(folder)
            opened = _open(folder, config, reporter)
        assert opened is not None
        return opened


def list_cache(project: Path) -> list[CacheEntry]:
    """The finished entries, the last used first."""
    found = []
    for folder in (project / CACHE).glob("*"):
        if folder.name == _LOCKS or folder.suffix:
            continue
        try:
            used = datetime.fromtimestamp((folder / "used").stat().st_mtime, UTC)
            size = _size(folder)
        except (FileNotFoundError, NotADirectoryError):
            # No entry, or one that is being removed.
            continue
        rows = {split: _rows(folder / split) for split in ("train", "valid")}
        found.append(CacheEntry(folder.name, size, rows, used))
    return sorted(found, key=lambda entry: entry.used_at, reverse=True)


def clear_cache(project: Path) -> int:
    """Remove the finished entries that nobody is opening, and what was left unfinished; returns the bytes freed."""
    freed = _sweep(project / CACHE)
    for entry in list_cache(project):
        with (project / CACHE / _LOCKS / entry.fingerprint).open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            with suppress(FileNotFoundError):
                # Otherwise another process removed it meanwhile.
                _remove(project / CACHE / entry.fingerprint)
                freed += entry.size
    return freed


def _sweep(cache: Path) -> int:
    """Remove what processes that were killed had begun; returns the bytes freed."""
    freed = 0
    for folder in cache.glob(f"*{_PARTIAL}"):
        with (cache / _LOCKS / folder.stem).open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            freed += _size(folder)
            shutil.rmtree(folder, ignore_errors=True)
    return freed


def _remove(folder: Path) -> None:
    """Remove an entry; what a kill leaves of it is swept."""
    partial = folder.with_name(folder.name + _PARTIAL)
    shutil.rmtree(partial, ignore_errors=True)
    folder.rename(partial)
    shutil.rmtree(partial)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _rows(split: Path) -> int | None:
    """Rows of a split; None when its manifest is damaged."""
    try:
        rows: int = json.loads((split / MANIFEST).read_text(encoding="utf-8"))["rows"]
    except (OSError, ValueError, KeyError):
        return None
    return rows


def _open(folder: Path, config: ProjectConfig, reporter: Reporter) -> Prepared | None:
    """The entry; None, and it is gone, when it is damaged."""
    try:
        encoder = FeatureEncoder.load(folder / "encoder")
        splits = [
            EncodedDataset.open(folder / split, encoder.layout, len(config.tasks), verify=True)
            for split in ("train", "valid")
        ]
    except MtlRankError as error:
        reporter.say(f"prepared data is made again: {error}")
        _remove(folder)
        return None
    return Prepared(folder.name, encoder, *splits)


def _fingerprint(config: ProjectConfig, repository: FeatureRepository, snapshot: Snapshot) -> str:
    sources = source_state(repository)
    if sources is None:
        # A warehouse may have changed since: this preparation belongs to one run alone.
        return secrets.token_hex(8)
    facts = {
        "format": FORMAT_VERSION,
        "rows": [snapshot.rows, snapshot.digest],
        "columns": dict(snapshot.columns),
        "schema": repository.schema.model_dump(mode="json"),
        "sources": sources,
        "valid": config.split.valid.isoformat(),
        # A list: the order of the tasks is that of the label columns.
        "tasks": [
            [name, task.model_dump(mode="json", exclude=_OF_TRAINING)] for name, task in config.tasks.items()
        ],
        "dim": config.model.dim,
        "weights": config.weights,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


@contextmanager
def _scratch(cache: Path) -> Iterator[Path]:
    """A folder that is gone afterwards; its lock, held before it is there, tells it from one that was left behind."""
    name = f"snapshot-{secrets.token_hex(8)}"
    lock = cache / _LOCKS / name
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        folder = cache / (name + _PARTIAL)
        try:
            folder.mkdir()
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            lock.unlink(missing_ok=True)


@contextmanager
def _locked(path: Path, reporter: Reporter) -> Iterator[None]:
    """Hold the file lock `path`; the kernel frees it when its holder dies."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            reporter.say("another process is preparing the same data; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
