"""The demo shop appears whole or not at all, and Feast's own command line works on it."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from shop_tables import CHECKOUT, TABLES, read_shop

from mtl_rank.datasets.shop import simulate_shop
from mtl_rank.errors import MtlRankError


@pytest.fixture
def small_project(tmp_path: Path) -> Path:
    """The feature repository beside a small shop."""
    ignored = shutil.ignore_patterns("__pycache__", "data")
    shutil.copytree(CHECKOUT / "feature_repo", tmp_path / "feature_repo", ignore=ignored)
    simulate_shop(tmp_path / "data", rows=5_000)
    return tmp_path


def test_a_run_that_fails_leaves_the_old_files_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "shop"
    simulate_shop(out, rows=1_000, seed=1)
    (out / "notes.md").write_text("mine")
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def stop(day: int, days: int) -> None:
        if day == 15:
            raise KeyboardInterrupt

    for folder in (out, tmp_path / "new"):
        with pytest.raises(KeyboardInterrupt):
            simulate_shop(folder, rows=20_000, seed=2, progress=stop)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert list(tmp_path.iterdir()) == [out]

    simulate_shop(out, rows=2_000, seed=2)
    assert (out / "notes.md").read_text() == "mine"
    assert len(pl.read_parquet(out / "impressions.parquet")) == 2_000


def test_a_killed_run_leaves_no_file_in_the_folder(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path; from mtl_rank.datasets.shop import simulate_shop\n"
        "die = lambda day, days: day == 20 and os.kill(os.getpid(), signal.SIGKILL)\n"
        "simulate_shop(Path(sys.argv[1]), rows=5_000, progress=die)"
    )
    out = tmp_path / "shop"
    done = subprocess.run([sys.executable, "-c", script, str(out)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not out.exists()
    simulate_shop(out, rows=5_000)
    assert {path.stem for path in out.iterdir()} == TABLES


def test_what_cannot_be_simulated_is_said_plainly(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    for out, rows, seed, said in [
        (tmp_path / "x", 10, 7, "10 rows"),
        (tmp_path / "x", 5_000, -1, "seed -1"),
        (file, 5_000, 7, "is a file"),
    ]:
        with pytest.raises(MtlRankError, match=said):
            simulate_shop(out, rows=rows, seed=seed)
    assert file.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [file]


# The feature repository


def test_the_stock_feast_command_line_works_on_the_shop(small_project: Path) -> None:
    """One process for three commands, as importing Feast takes most of the time."""
    script = (
        "from feast.cli.cli import cli\n"
        "for line in ('apply', 'materialize 2026-03-01T00:00:00 2026-03-31T00:00:00', 'feature-services list'):\n"
        "    cli(line.split(), standalone_mode=False)\n"
        "from feast import FeatureStore\n"
        "store = FeatureStore('.')\n"
        "keys = [{'user_id': 1, 'item_id': 1, 'category_id': 0}]\n"
        "service = store.get_feature_service('ranking_v1')\n"
        "row = store.get_online_features(service, keys, full_feature_names=True).to_dict()\n"
        "print('row', row['user_history__clicked_items'][0], row['price_match__price_gap'][0])\n"
    )
    repository = small_project / "feature_repo"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=repository,
        env={**os.environ, "FEAST_USAGE": "False"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "ranking_v1" in done.stdout
    shop = read_shop(small_project / "data")
    last = shop["user_history"].filter(user_id=1).sort("event_timestamp")["clicked_items"].to_list()
    level = shop["item_profile"].filter(item_id=1).sort("event_timestamp")["price_level"].to_list()[-1]
    gap = np.log(level / shop["user_profile"].filter(user_id=1)["price_preference"].item())
    said = next(line for line in done.stdout.splitlines() if line.startswith("row "))
    assert said.startswith(f"row {last[-1] if last else None} ")
    assert float(said.split()[-1]) == pytest.approx(gap, abs=1e-5)
