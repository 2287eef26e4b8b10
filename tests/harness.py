"""The command line as a function, and mtlrank.yaml as a document: what end-to-end tests share."""

import io
import json
import sys
from collections.abc import Mapping
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import yaml


class Outcome(NamedTuple):
    """What a command left: its exit code and what it printed."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document on stdout."""
        return json.loads(self.out)


def mtlrank(*arguments: str | Path, cwd: Path | None = None) -> Outcome:
    """`mtlrank ARGUMENTS` in this process, through the very function that the installed script calls."""
    from mtlrank_cli.main import main

    out, err = io.StringIO(), io.StringIO()
    code: Any = 0
    with (
        chdir(cwd or Path.cwd()),
        redirect_stdout(out),
        redirect_stderr(err),
        patch.object(sys, "argv", ["mtlrank", *map(str, arguments)]),
    ):
        try:
            main()
        except SystemExit as end:
            code = end.code
    return Outcome(code or 0, out.getvalue(), err.getvalue())


def set_keys(project: Path, settings: Mapping[str, Any]) -> Path:
    """Change dotted keys of the project's mtlrank.yaml; None removes a key."""
    path = project / "mtlrank.yaml"
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    for dotted, value in settings.items():
        *parents, last = dotted.split(".")
        section = document
        for parent in parents:
            section = section.setdefault(parent, {})
        if value is None:
            section.pop(last)
        else:
            section[last] = value
    path.write_text(yaml.safe_dump(document, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return project
