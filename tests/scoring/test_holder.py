"""Whose claim is alive, where processes have numbers of their own, as in containers."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_jobs import query, sink_of, write

from mtl_rank.errors import ScoresError

UNSHARE = ["unshare", "--fork", "--pid", "--mount-proc"]
HOLDING = """
import sys
from pathlib import Path
from small_jobs import chunk_of, scores_of, sink_of
from mtl_rank.scoring.table import ScoresTarget

with sink_of(ScoresTarget(Path(sys.argv[1]))) as sink:
    sink.commit(chunk_of(0), scores_of(0))
    print("held", flush=True)
    sys.stdin.readline()
    sink.commit(chunk_of(1), scores_of(1))
    sink.finish(2)
"""


def test_a_job_in_another_container_of_this_host_is_not_taken_over(target):
    try:
        subprocess.run([*UNSHARE, "true"], check=True, capture_output=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        pytest.skip("only root may make process numbers of its own")
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    with subprocess.Popen(
        [*UNSHARE, sys.executable, "-c", HOLDING, str(target.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    ) as job:
        assert job.stdout is not None
        assert job.stdout.readline() == "held\n"
        with pytest.raises(ScoresError, match=r"is running: process 1 on .* \(container \d+\) holds it"):
            sink_of(target).begin()
        job.communicate("go on\n")
    assert job.returncode == 0
    write(target)
    assert query(target, "SELECT count(*), count(DISTINCT item_id) FROM scores") == [(200, 200)]
