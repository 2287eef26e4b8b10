"""Fresh processes for every measurement, and the environment of the peers."""

import hashlib
import json
import os
import subprocess
import sys
import time
import venv
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[1]
PEERS = HERE / ".venv"
REQUIREMENTS = HERE / "requirements-peers.txt"


def peers_python() -> Path:
    """The interpreter of the peers' environment, made on first use and after a change of its requirements."""
    python = PEERS / "bin" / "python"
    made_from = PEERS / "made-from"
    wanted = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    if not made_from.exists() or made_from.read_text(encoding="utf-8") != wanted:
        say(f"installing {REQUIREMENTS.name} into {PEERS}")
        venv.create(PEERS, clear=True, with_pip=True)
        command = [
            python,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "-r",
            REQUIREMENTS,
        ]
        subprocess.run(command, check=True)
        made_from.write_text(wanted, encoding="utf-8")
    return python


def run(module: str, *arguments: object, threads: int = 1, python: Path | None = None) -> list[str]:
    """The lines that `python -m module arguments` prints, run on `threads` threads."""
    limits = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS")
    path = os.pathsep.join(filter(None, (str(HERE), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [str(python or sys.executable), "-m", module, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": path, **dict.fromkeys(limits, str(threads))},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        raise SystemExit(
            f"{module} {' '.join(map(str, arguments))} ended with {done.returncode}:\n{done.stderr[-2000:]}"
        )
    return lines


def measure(module: str, *arguments: object, threads: int = 1, python: Path | None = None) -> dict[str, Any]:
    """The JSON document on the last line that the process prints."""
    found: dict[str, Any] = json.loads(run(module, *arguments, threads=threads, python=python)[-1])
    return found


def seconds_to_first_step(project: Path) -> float:
    """From the start of the process to the end of the first optimizer step."""
    start = time.time()
    return float(run("train.first_step", project, threads=os.cpu_count() or 1)[-1]) - start


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
