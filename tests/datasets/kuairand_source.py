"""The published files of KuaiRand, where they are here."""

import os
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

CHECKOUT = Path(__file__).parents[2]
SOURCE = Path(os.environ.get("MTLRANK_KUAIRAND", CHECKOUT.parent / "shared" / "kuairand"))
LOG = "log_standard_20220425_20220430.parquet"
USERS = "user_features_pure.parquet"
VIDEOS = "video_features_basic_pure.parquet"
HISTORY = "user_history_until_20220424.parquet"
FILES = (LOG, USERS, VIDEOS, HISTORY)

needs_source = pytest.mark.skipif(not SOURCE.is_dir(), reason="the KuaiRand files are not here")


def source_with(folder: Path, **replaced: Callable[[pl.DataFrame], pl.DataFrame]) -> Path:
    """The published files, some of them changed: log=..., users=..., videos=..., history=..."""
    folder.mkdir()
    for name, file in zip(("log", "users", "videos", "history"), FILES, strict=True):
        if name in replaced:
            replaced[name](pl.read_parquet(SOURCE / file)).write_parquet(folder / file)
        else:
            (folder / file).symlink_to(SOURCE.resolve() / file)
    return folder
