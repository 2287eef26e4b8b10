"""The run directory: create, open, list. `run.json` says what a run was and whether it finished."""

import fcntl
import json
import platform
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

from mtl_rank.config import ProjectConfig, parse_config
from mtl_rank.durable import appearing
from mtl_rank.errors import RunError, did_you_mean

RUNS = "runs"
RUNNING, FINISHED, FAILED, INTERRUPTED = "running", "finished", "failed", "interrupted"
KILLED = "killed"
_LOCK, _MEASURED_LOCK = "lock", "measured.lock"
_LISTED = ("status", "tasks", "model", "weighting")
_TRIES, _PAUSE = 50, 0.02
_PACKAGES = ("mtl-rank", "torch", "lightning", "feast", "duckdb", "polars", "numpy")


@dataclass(frozen=True)
class Run:
    """One run directory."""

    folder: Path

    @property
    def id(self) -> str:
        return self.folder.name

    @property
    def project(self) -> Path:
        return self.folder.parent.parent

    @property
    def encoder_folder(self) -> Path:
        return self.folder / "encoder"

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def weights(self) -> Path:
        return self.folder / "model.safetensors"

    @property
    def calibration(self) -> Path:
        return self.folder / "calibration.json"

    @property
    def report(self) -> Path:
        return self.folder / "report.html"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Be the only process that trains this run. Raises RunError when another one is at it."""
        with (self.folder / _LOCK).open("w") as file:
            # Whoever lists runs has the lock too, for a moment. Tries are counted, and not seconds, in which a busy
            # machine may not let this process look a second time.
            for _ in range(_TRIES):
                if _locked(file):
                    break
                time.sleep(_PAUSE)
            else:
                raise RunError(f"run {self.id} is being trained by another process")
            yield

    def status(self) -> str:
        """The status in run.json; a run whose process is gone is `killed`, not `running`."""
        status: str = self.info().get("status", FAILED)
        if status != RUNNING or self._is_held():
            return status
        # It may have ended between the two looks.
        status = self.info().get("status", FAILED)
        return KILLED if status == RUNNING else status

    def refuse_finished(self) -> None:
        """Raises RunError when there is nothing to continue."""
        if self.info().get("status") == FINISHED:
            raise RunError(f"run {self.id} is finished; there is nothing to continue")

    def _is_held(self) -> bool:
        """Whether a process trains this run. Nothing is written: whoever may read a project may list its runs."""
        try:
            file = (self.folder / _LOCK).open()
        except FileNotFoundError:
            return False
        except PermissionError:
            # Then run.json, which says that it is running, is all there is to go by.
            return True
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            return False

    def damage(self) -> str | None:
        """Why the run cannot be listed among others; None = it can."""
        try:
            info, metrics = self.info(), self.metrics()
        except RunError as error:
            return str(error)
        for name in _LISTED:
            if name not in info:
                return f"run {self.id}: {self.folder / 'run.json'} does not say {name!r}"
        if not all(isinstance(one, dict) for one in metrics.values()):
            return f"run {self.id}: {self.folder / 'metrics.json'} holds what are no numbers of a window"
        return None

    def info(self) -> dict[str, Any]:
        """run.json. Raises RunError when it cannot be read."""
        return self._read_json("run.json")

    def metrics(self) -> dict[str, Any]:
        """metrics.json; empty before the first evaluation."""
        return self._read_json("metrics.json") if (self.folder / "metrics.json").exists() else {}

    def details(self) -> dict[str, Any]:
        """evaluation.json: per window what a report draws; empty before the first evaluation."""
        return self._read_json("evaluation.json") if (self.folder / "evaluation.json").exists() else {}

    def checks(self) -> dict[str, Any]:
        """checks.json: what the data checks found before the training; empty for a run without."""
        return self._read_json("checks.json") if (self.folder / "checks.json").exists() else {}

    def write_checks(self, checks: dict[str, Any]) -> None:
        write_json(self.folder / "checks.json", checks)

    def config(self, settings: Mapping[str, Any] | None = None) -> ProjectConfig:
        """The complete configuration that the run was trained with; `settings` override dotted keys of it."""
        path = self.folder / "config.yaml"
        try:
            return parse_config(path.read_text(encoding="utf-8"), str(path), settings)
        except OSError as error:
            raise RunError(f"run {self.id}: {path} cannot be read: {error.strerror}") from None

    def update(self, **facts: Any) -> None:
        """Set keys of run.json."""
        write_json(self.folder / "run.json", {**self.info(), **facts})

    @contextmanager
    def kept_by_one(self) -> Iterator[None]:
        """Be the only process that adds to what was measured of this run; waits for others."""
        with (self.folder / _MEASURED_LOCK).open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def write_metrics(self, metrics: dict[str, Any]) -> None:
        write_json(self.folder / "metrics.json", metrics)

    def write_details(self, details: dict[str, Any]) -> None:
        write_json(self.folder / "evaluation.json", details)

    def _read_json(self, name: str) -> dict[str, Any]:
        try:
            document: dict[str, Any] = json.loads((self.folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RunError(f"run {self.id}: {self.folder / name} cannot be read: {error}") from None
        if not isinstance(document, dict):
            raise RunError(f"run {self.id}: {self.folder / name} cannot be read: it holds no JSON object")
        return document


@contextmanager
def create_run(project: Path, config: ProjectConfig) -> Iterator[Run]:
    """A new run directory with status `running`, held before others can find it.

    Raises RunError when it cannot be made.
    """
    stamp = datetime.now(UTC)
    name = f"{stamp:%Y%m%d-%H%M%S}-{config.model.name}-{'-'.join(config.tasks)}"[:80]
    folder = project / RUNS / f"{name}-{secrets.token_hex(2)}"
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise RunError(f"{folder} cannot be made: {error.strerror}") from None
    facts = {
        "id": folder.name,
        "status": RUNNING,
        "created_at": stamp.isoformat(timespec="seconds"),
        "tasks": list(config.tasks),
        "model": config.model.name,
        "weighting": config.weighting.method,
        "feature_service": config.feature_service,
        "seed": config.fit.seed,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
        "git_commit": _git_commit(project),
    }
    run = Run(folder)
    with ExitStack() as held:
        try:
            held.enter_context(run.held())
            (folder / "config.yaml").write_text(config.to_yaml(), encoding="utf-8")
            write_json(folder / "run.json", facts)
        except BaseException as error:
            # Without run.json it is no run, and nothing would ever list or remove it.
            shutil.rmtree(folder, ignore_errors=True)
            if isinstance(error, OSError):
                raise RunError(f"{folder} cannot be made: {error.strerror}") from None
            raise
        yield run


def list_runs(project: Path) -> list[Run]:
    """Every run of a project, the oldest first."""
    folder = project / RUNS
    if not folder.is_dir():
        return []
    return sorted(
        (Run(path) for path in folder.iterdir() if (path / "run.json").is_file()), key=lambda r: r.id
    )


def find_run(project: Path, name: str | None = None) -> Run:
    """The finished run called `name` (or the only one beginning so), or the latest finished one.

    Raises RunError when there is none, or it did not finish.
    """
    runs = list_runs(project)
    if name is None:
        finished = [run for run in runs if run.info().get("status") == FINISHED]
        if not finished:
            raise RunError(f"{project / RUNS} has no finished run; `mtlrank train` makes one")
        return finished[-1]
    run = _named(runs, name)
    status = run.status()
    if status != FINISHED:
        raise RunError(
            f"run {run.id} is {status}, not finished; `mtlrank train --resume {run.id}` continues it"
        )
    return run


def find_unfinished(project: Path, name: str | None = None) -> Run:
    """The run to continue: by its name or the beginning of it, or the latest that is not finished.

    Raises RunError when there is none.
    """
    runs = list_runs(project)
    if name is not None:
        run = _named(runs, name)
        run.refuse_finished()
        return run
    unfinished = [run for run in runs if run.status() not in (FINISHED, RUNNING)]
    if not unfinished:
        raise RunError(f"{project / RUNS} has no run to continue")
    return unfinished[-1]


def _named(runs: list[Run], name: str) -> Run:
    matching = [run for run in runs if run.id == name] or [run for run in runs if run.id.startswith(name)]
    if not matching:
        raise RunError(f"there is no run {name!r}; {did_you_mean(name, [run.id for run in runs])}")
    if len(matching) > 1:
        raise RunError(f"{name!r} is the beginning of {len(matching)} runs; write more of its name")
    return matching[0]


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Replace a JSON file in one step: readers see the old or the new one."""
    text = json.dumps(document, indent=2, allow_nan=False, default=str)
    with appearing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def _locked(file: IO[str]) -> bool:
    """Lock a file for this process alone; False when others have it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _git_commit(folder: Path) -> str | None:
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() if found.returncode == 0 else None
