"""mtlrank runs: every run is listed, whatever became of another, by whoever may read."""

import shutil
from pathlib import Path

import pytest
from harness import mtlrank

from mtl_rank.runs import find_run, write_json

DAMAGES = {
    "run.json": (b"{", b"{}", b"[]", b'{"status": "finished"}'),
    "metrics.json": (b"{", b"[]", b'{"test": 5}'),
}


@pytest.mark.parametrize(
    ("name", "content"), [(name, content) for name, contents in DAMAGES.items() for content in contents]
)
def test_a_damaged_run_is_listed_as_such_and_hides_no_other(
    trained: Path, tmp_path: Path, name: str, content: bytes
) -> None:
    project = shutil.copytree(trained, tmp_path / "shop")
    good = find_run(project)
    bad = shutil.copytree(good.folder, good.folder.with_name("20250101-bad"))
    (bad / name).write_bytes(content)

    outcome = mtlrank("runs", cwd=project)
    assert outcome.code == 0, outcome.err
    listed = {line.split()[0]: line.split()[1] for line in outcome.out.splitlines()[2:]}
    assert listed == {"20250101-bad": "damaged", good.id: "finished"}
    assert outcome.err.startswith("mtlrank: run 20250101-bad: ")
    assert name in outcome.err
    assert outcome.err.count("\n") == 1

    first, second = mtlrank("runs", "--json", cwd=project).document
    assert (first["id"], first["status"]) == ("20250101-bad", "damaged")
    assert name in first["note"]
    assert second == {**good.info(), "metrics": good.metrics()}


def test_looking_at_a_run_writes_nothing(trained: Path, tmp_path: Path) -> None:
    """So a reader of a folder that is not his own can list what is in it."""
    run = find_run(shutil.copytree(trained, tmp_path / "shop"))
    write_json(run.folder / "run.json", {**run.info(), "status": "running"})
    lock = run.folder / "lock"

    with run.held():
        before = lock.stat().st_mtime_ns
        assert run.status() == "running"
        assert lock.stat().st_mtime_ns == before
    lock.chmod(0o444)
    assert run.status() == "killed"
    assert lock.stat().st_mtime_ns == before
    lock.unlink()
    assert run.status() == "killed"
    assert not lock.exists()
