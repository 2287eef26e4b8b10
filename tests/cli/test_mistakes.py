"""Everything a user can get wrong: exit 2, a line or two that name it, nothing on stdout, nothing half-written."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from harness import mtlrank, set_keys
from mistakes_in_projects import EXAMPLES, FEATURES, MTLRANK_YAML
from mistakes_in_use import FINISHED_RUN, OPTIONS, RUNS
from spoiling import Case


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The system's temporary folder, in which nothing of ours may stay."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.glob("*mtlrank*")) == []


def cases(*tables: tuple[Case, ...]) -> list[Any]:
    return [
        pytest.param(
            case,
            id=case.name,
            marks=[pytest.mark.xfail(reason=case.bug, strict=True)] if case.bug else [],
        )
        for case in chain(*tables)
    ]


@pytest.mark.parametrize("case", cases(MTLRANK_YAML, FEATURES, EXAMPLES, OPTIONS, RUNS))
def test_mistakes_before_anything_is_trained(case: Case, project: Path) -> None:
    check(case, project)


@pytest.mark.parametrize("case", cases(FINISHED_RUN))
def test_mistakes_with_a_finished_run(case: Case, trained: Path, tmp_path: Path) -> None:
    check(case, shutil.copytree(trained, tmp_path / "shop"))


def check(case: Case, project: Path) -> None:
    case.spoil(project)
    before = files_of(project)

    outcome = mtlrank(*case.arguments, cwd=project)

    lines = outcome.err.strip().splitlines()
    message = outcome.err[outcome.err.rfind("mtlrank: ") :].strip()
    assert outcome.code == 2, outcome
    assert outcome.out == ""
    assert "Traceback" not in outcome.err
    assert lines, outcome
    assert message.startswith("mtlrank: ")
    assert len(message.splitlines()) <= 2, message
    assert [word for word in case.says if word not in message] == [], message
    assert files_of(project) == before
    assert "running" not in statuses(project)


def test_a_failed_preparation_leaves_no_data(project: Path) -> None:
    set_keys(project, {"tasks.ctr.label": "position", "tasks.cvr": None, "tasks.dwell": None})
    assert mtlrank("train", cwd=project).code == 2
    assert [path for path in (project / "cache").iterdir() if path.name != "locks"] == []


def files_of(project: Path) -> dict[str, int]:
    """Every file with its size; those of failed trainings and of their prepared data left out."""
    return {
        str(path.relative_to(project)): path.stat().st_size
        for path in sorted(project.rglob("*"))
        if path.is_file() and not is_failed(path, project / "runs") and project / "cache" not in path.parents
    }


def is_failed(path: Path, runs: Path) -> bool:
    """Whether a file belongs to a training that ended with the mistake, and left nothing it did not finish."""
    if runs not in path.parents:
        return False
    run = runs / path.relative_to(runs).parts[0]
    return status(run) == "failed" and not (run / "work").exists()


def statuses(project: Path) -> set[str]:
    return {status(run) for run in (project / "runs").glob("*/")}


def status(run: Path) -> str:
    try:
        return json.loads((run / "run.json").read_text())["status"]
    except ValueError:
        return "damaged"
