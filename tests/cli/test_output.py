"""What people see on a terminal: numbers and names in one piece, however narrow it is."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from mtl_rank.runs import find_run

PRINT = "from mtlrank_cli.output import print_table; print_table({title!r}, {header!r}, {rows!r})"


def on_terminal(columns: int, *command: str | Path, cwd: Path | None = None) -> list[str]:
    """What a command writes to a terminal of so many columns, line by line, without colours."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    with subprocess.Popen(
        command, cwd=cwd, stdout=theirs, stderr=subprocess.PIPE, env={**environment, "TERM": "xterm"}
    ) as process:
        os.close(theirs)
        written = b""
        while True:
            try:
                part = os.read(ours, 65_536)
            # This is how the end of a terminal is told.
            except OSError:
                break
            written += part
        assert process.stderr is not None
        errors = process.stderr.read().decode()
    os.close(ours)
    assert process.returncode == 0, errors
    return re.sub(r"\x1b\[[0-9;]*m", "", written.decode()).splitlines()


def printed(columns: int, header: tuple[str, ...], *rows: tuple[object, ...]) -> list[str]:
    code = PRINT.format(title="title", header=header, rows=rows)
    return on_terminal(columns, sys.executable, "-c", code)


@pytest.mark.parametrize("columns", [40, 80])
def test_runs_and_numbers_stay_whole_on_a_narrow_terminal(trained: Path, columns: int) -> None:
    run = find_run(trained)
    script = Path(sys.executable).with_name("mtlrank")
    lines = on_terminal(columns, script, "runs", cwd=trained)
    assert f"run        {run.id}" in lines
    assert f"rows       {run.info()['rows']['train']:,}" in lines
    tested = run.metrics()["test"]
    shown = " ".join(" ".join(lines).split())
    auc = " ".join(f"{name} {n['auc']:.4f}" for name, n in tested["tasks"].items() if n.get("auc"))
    assert f"test AUC {auc}" in shown


@pytest.mark.parametrize("columns", [40, 80])
def test_an_evaluation_is_read_line_by_line_on_a_narrow_terminal(trained: Path, columns: int) -> None:
    tested = find_run(trained).metrics()["test"]
    code = "import json, sys; from mtlrank_cli.commands.evaluate import print_evaluation; "
    path = find_run(trained).folder / "metrics.json"
    lines = on_terminal(
        columns,
        sys.executable,
        "-c",
        code + f"print_evaluation(json.load(open({str(path)!r}))['test'])",
    )
    fields = [line.split(maxsplit=1) for line in lines if len(line.split()) > 1]
    for numbers in tested["tasks"].values():
        assert ["task", numbers["name"]] in fields
        assert ["rows", f"{numbers['rows']:,}"] in fields
        first = "auc" if numbers["kind"] == "binary" else "rmse"
        assert [first.upper(), f"{numbers[first]:.4f}"] in fields
    assert max(map(len, lines)) <= columns


def test_a_table_that_fits_is_a_table() -> None:
    lines = printed(40, ("name", "rows"), ("a", 5291), ("b", None))
    assert [line.rstrip() for line in lines] == ["title", "name   rows", "a     5,291", "b         -"]


def test_a_long_text_is_wrapped_at_its_words_beside_whole_numbers() -> None:
    text = "the words of this message are many and none of them may be cut in two"
    lines = printed(60, ("run", "AUC", "note"), ("20260401-120000-mmoe", 0.75271, text))
    assert lines[2].split()[:3] == ["20260401-120000-mmoe", "0.7527", "the"]
    assert " ".join(" ".join(line[30:] for line in lines[2:]).split()) == text
    assert len(lines) > 3


def test_what_has_no_value_takes_no_line_of_a_record() -> None:
    name = "a-name-that-is-longer-than-the-whole-terminal-is-wide"
    lines = printed(40, ("run", "AUC", "note"), (name, None, ""), ("b", 0.5, "x"))
    # The terminal itself breaks the long name, so that it is copied in one piece.
    assert lines == ["title", f"run   {name}", "", "run   b", "AUC   0.5000", "note  x", ""]
