"""How a test spoils a project: the mistakes of users, as functions of the project's folder."""

import json
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
from harness import set_keys

IMPRESSIONS = "data/impressions.parquet"
CANDIDATES = "data/candidates.parquet"


@dataclass(frozen=True)
class Case:
    """One mistake: how the project is spoilt, the command, and what the message must name.

    bug: why the rule does not hold yet.
    """

    name: str
    command: str | tuple[str, ...]
    says: tuple[str, ...]
    spoil: Callable[[Path], Any] = lambda project: None
    bug: str = ""

    @property
    def arguments(self) -> list[str]:
        return self.command.split() if isinstance(self.command, str) else list(self.command)


def keys(**settings: Any) -> Callable[[Path], Any]:
    """Set keys of mtlrank.yaml; two underscores stand for a dot."""
    dotted = {name.replace("__", "."): value for name, value in settings.items()}
    return lambda project: set_keys(project, dotted)


def text(content: str | bytes, path: str = "mtlrank.yaml") -> Callable[[Path], Any]:
    data = content.encode() if isinstance(content, str) else content
    return lambda project: (project / path).write_bytes(data)


def table(path: str, change: Callable[[pl.DataFrame], pl.DataFrame]) -> Callable[[Path], Any]:
    """Rewrite a parquet file of the project."""

    def rewrite(project: Path) -> None:
        file = project / path
        change(pl.read_parquet(file)).write_parquet(file)

    return rewrite


def examples(change: Callable[[pl.DataFrame], pl.DataFrame]) -> Callable[[Path], Any]:
    return table("data/impressions.parquet", change)


def candidates(change: Callable[[pl.DataFrame], pl.DataFrame]) -> Callable[[Path], Any]:
    return table(CANDIDATES, change)


def without(path: str) -> Callable[[Path], Any]:
    """Remove a file or a folder of the project."""

    def remove(project: Path) -> None:
        target = project / path
        if target.is_dir():
            shutil.rmtree(target)
        else:
            target.unlink()

    return remove


def run_of(project: Path) -> Path:
    (run,) = (project / "runs").iterdir()
    return run


def run_that(status: str) -> Callable[[Path], Any]:
    def mark(project: Path) -> None:
        file = run_of(project) / "run.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "status": status}))

    return mark


def of_run(path: str, content: bytes | None) -> Callable[[Path], Any]:
    """Replace, or with None remove, a file of the only run."""

    def change(project: Path) -> None:
        file = run_of(project) / path
        file.unlink()
        if content is not None:
            file.write_bytes(content)

    return change


def halved_weights(project: Path) -> None:
    file = run_of(project) / "model.safetensors"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def user_key(project: Path) -> None:
    """Let the run's own configuration name a column that is not there."""
    file = run_of(project) / "config.yaml"
    file.write_text(file.read_text().replace("user_key: null", "user_key: user"))


def second_run(project: Path) -> None:
    run = run_of(project)
    shutil.copytree(run, run.with_name(f"{run.name}-again"))


def sqlite_file(project: Path) -> None:
    con = sqlite3.connect(project / "scores.duckdb")
    con.execute("CREATE TABLE scores (user_id INTEGER)")
    con.commit()
    con.close()


def duckdb_file(statement: str) -> Callable[[Path], Any]:
    def make(project: Path) -> None:
        with duckdb.connect(str(project / "scores.duckdb")) as con:
            con.execute(statement)

    return make


def cut_short(path: str) -> Callable[[Path], Any]:
    """Lose the end of a file."""
    return lambda project: (project / path).write_bytes((project / path).read_bytes()[:-100])
