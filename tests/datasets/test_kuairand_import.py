"""The KuaiRand project appears whole or not at all, and what is wrong with its files is named."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from kuairand_source import HISTORY, LOG, SOURCE, USERS, VIDEOS, needs_source, source_with

from mtl_rank.datasets.kuairand import import_kuairand
from mtl_rank.errors import MtlRankError

pytestmark = needs_source


def tree(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_two_imports_are_equal_byte_for_byte(tmp_path: Path) -> None:
    first = import_kuairand(SOURCE, tmp_path / "first").project
    (tmp_path / "second").mkdir()
    second = import_kuairand(SOURCE, tmp_path / "second").project
    assert tree(first) == tree(second)
    assert {"mtlrank.yaml", "README.md", "feature_repo/services.py"} <= set(tree(first))


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "mine.txt").write_text("keep")
    with pytest.raises(MtlRankError, match=r"taken.*not an empty folder"):
        import_kuairand(SOURCE, taken)
    with pytest.raises(MtlRankError, match=r"mine\.txt.*not an empty folder"):
        import_kuairand(SOURCE, taken / "mine.txt")
    with pytest.raises(MtlRankError, match="cannot be made"):
        import_kuairand(SOURCE, taken / "mine.txt" / "deeper" / "still")
    assert [path.name for path in tmp_path.rglob("*")] == ["taken", "mine.txt"]
    assert (taken / "mine.txt").read_text() == "keep"


@pytest.mark.parametrize("exists", [False, True])
@pytest.mark.parametrize("step", ["reading", "writing candidates", "writing user_tag_priors"])
def test_an_interrupted_import_leaves_nothing(tmp_path: Path, exists: bool, step: str) -> None:
    out = tmp_path / "out"
    if exists:
        out.mkdir()

    def interrupt(line: str) -> None:
        if line.startswith(step):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_kuairand(SOURCE, out, interrupt)
    assert list(tmp_path.rglob("*")) == ([out] if exists else [])


def drop(column: str) -> Callable[[pl.DataFrame], pl.DataFrame]:
    return lambda frame: frame.drop(column)


def put(column: str, value: object) -> Callable[[pl.DataFrame], pl.DataFrame]:
    return lambda frame: frame.with_columns(pl.lit(value).alias(column))


@pytest.mark.parametrize(
    ("table_name", "change", "file", "word"),
    [
        ("log", drop("is_like"), LOG, "is_like"),
        ("log", put("is_click", 2), LOG, "is_click"),
        ("log", put("time_ms", None), LOG, "time_ms"),
        ("log", put("user_id", "someone"), LOG, "user_id"),
        ("log", lambda frame: frame.head(0), LOG, "no rows"),
        ("users", drop("onehot_feat7"), USERS, "onehot_feat7"),
        ("users", put("user_id", 1), USERS, "user_id"),
        ("history", put("user_id", None), HISTORY, "user_id"),
        ("videos", put("tag", "cats,dogs"), VIDEOS, "tag"),
        ("videos", put("upload_dt", "yesterday"), VIDEOS, "upload_dt"),
        ("history", put("watch_seq", 3), HISTORY, "watch_seq"),
    ],
)
def test_a_wrong_source_is_named(
    tmp_path: Path, table_name: str, change: Callable[[pl.DataFrame], pl.DataFrame], file: str, word: str
) -> None:
    source = source_with(tmp_path / "source", **{table_name: change})
    with pytest.raises(MtlRankError) as caught:
        import_kuairand(source, tmp_path / "out")
    message = str(caught.value)
    assert file in message
    assert word in message
    assert len(message.splitlines()) <= 2
    assert not (tmp_path / "out").exists()


def test_missing_and_unreadable_files_are_named(tmp_path: Path) -> None:
    source = source_with(tmp_path / "source")
    (source / HISTORY).unlink()
    with pytest.raises(MtlRankError, match=HISTORY):
        import_kuairand(source, tmp_path / "out")
    (source / HISTORY).write_bytes(b"not a parquet file")
    with pytest.raises(MtlRankError, match=HISTORY):
        import_kuairand(source, tmp_path / "out")
    with pytest.raises(MtlRankError, match=LOG):
        import_kuairand(tmp_path / "nowhere", tmp_path / "out")
    assert not (tmp_path / "out").exists()
