"""Finished runs at work: batch scores, and files for other programs."""

import tempfile
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from mtl_rank.errors import ConfigError, did_you_mean
from mtl_rank.exporting.export import Exported, check_destination, real_rows
from mtl_rank.exporting.export import export as export_rows
from mtl_rank.exporting.formats import format_named
from mtl_rank.predict import Predictor
from mtl_rank.progress import Reporter, Silent
from mtl_rank.runs import find_run
from mtl_rank.scoring.candidates import CandidateRules
from mtl_rank.scoring.ray_engine import Cluster
from mtl_rank.scoring.score import ScoreOptions, ScoreSummary
from mtl_rank.scoring.score import score as score_candidates
from mtl_rank.scoring.sinks import open_target
from mtl_rank.scoring.sources import Pairs
from mtl_rank.workflow.project import project_repository


def score(
    project: Path | str,
    run: str | None = None,
    *,
    candidates: Any = None,
    users: Any = None,
    items: Any = None,
    to: Path | str,
    table: str | None = None,
    as_of: datetime | None = None,
    replace: bool = False,
    wait: bool = True,
    duplicates: str = "keep",
    null_keys: str = "error",
    carry: Sequence[str] = (),
    rank_by: str | None = None,
    per: Sequence[str] = (),
    top_k: int | None = None,
    allow_changed_features: bool = False,
    again: str | None = None,
    features: str = "offline",
    push: str | None = None,
    engine: str = "local",
    address: str | None = None,
    workers: int | None = None,
    reporter: Reporter | None = None,
) -> ScoreSummary:
    """Score candidates with a finished run into a table of a DuckDB file or parquet, each exactly once.

    run: its name or the beginning of it, None = the latest. candidates: a table, or text: a parquet path, one
    SELECT for DuckDB, or `file.duckdb:table`. users, items: the same; every pair of them is a candidate. to: a
    DuckDB file, a parquet file, or a folder, as `open_target` tells them apart. The other options are those of
    `ScoreOptions` and `CandidateRules`.
    Raises MtlRankError for anything a user can mend, before any chunk is written where it can be known by then.
    """
    project, reporter = Path(project), reporter or Silent()
    options = ScoreOptions(
        as_of=as_of,
        replace=replace,
        wait=wait,
        rules=CandidateRules(duplicates, null_keys),
        carry=tuple(carry),
        rank_by=rank_by,
        per=tuple(per),
        top_k=top_k,
        allow_changed_features=allow_changed_features,
        again=again,
        online=_choice("--features", features, ("offline", "online")) == "online",
        push=push,
        cluster=_cluster(engine, address, workers),
    )
    rows = _rows_to_score(candidates, users, items)
    found = find_run(project, run)
    predictor = Predictor.load(found)
    repository = project_repository(project, predictor.config)
    with tempfile.TemporaryDirectory(prefix="mtlrank-") as folder:
        return score_candidates(
            predictor,
            repository,
            project,
            rows,
            open_target(to, table),
            options,
            Path(folder),
            reporter,
        )


def _cluster(engine: str, address: str | None, workers: int | None) -> Cluster | None:
    if _choice("--engine", engine, ("local", "ray")) == "ray":
        return Cluster(address, workers)
    if address is not None or workers is not None:
        raise ConfigError(f"{'--address' if address is not None else '--workers'} needs --engine ray")
    return None


def _choice(option: str, given: str, choices: tuple[str, ...]) -> str:
    if given not in choices:
        raise ConfigError(f"{option} {given}: {did_you_mean(given, choices)}")
    return given


def _rows_to_score(candidates: Any, users: Any, items: Any) -> Any:
    if candidates is not None and users is None and items is None:
        return candidates
    if candidates is None and users is not None and items is not None:
        return Pairs(users, items)
    raise ConfigError("score needs --candidates, or both --users and --items")


def export(
    project: Path | str,
    run: str | None = None,
    format: str = "onnx",
    to: Path | str | None = None,
    reporter: Reporter | None = None,
) -> Exported:
    """Write a finished run as one file that takes encoded rows and gives its predictions, the encoder beside it.

    format: `onnx` (extra `onnx`), or `torch`, a program for `torch.export.load`. to: a new folder, or one with an
    earlier export, which is replaced; None = `export-<format>` in the run.
    Raises RunError where torch cannot export the model, or the file differs from the run on rows of the project.
    """
    project, reporter = Path(project), reporter or Silent()
    format_named(format)
    found = find_run(project, run)
    folder = found.folder / f"export-{format}" if to is None else Path(to)
    check_destination(folder)
    predictor = Predictor.load(found)
    rows = real_rows(predictor, project_repository(project, predictor.config), project, reporter)
    return export_rows(predictor, rows, format, folder, reporter)
