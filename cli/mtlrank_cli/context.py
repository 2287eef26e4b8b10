"""Which project a command works on, and which paths are meant."""

import os
from pathlib import Path

import typer

from mtl_rank.errors import ConfigError

CONFIG_NAME = "mtlrank.yaml"


def project_folder(context: typer.Context) -> Path:
    """--project, or the current folder or the nearest parent that has mtlrank.yaml. Raises ConfigError."""
    given: Path | None = context.obj
    if given is not None:
        if not (given / CONFIG_NAME).exists():
            raise ConfigError(f"--project: no {CONFIG_NAME} in {given}; `mtlrank init DIR` makes a project")
        return given.resolve()
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / CONFIG_NAME).is_file():
            return folder
    raise ConfigError(
        f"no {CONFIG_NAME} in {here} or above; `mtlrank init DIR` makes a project, --project names one"
    )


def from_here(path: str) -> str:
    """A path of the command line made absolute; a slash at its end, which says that it is a folder, stays."""
    slash = "/" if path.endswith(("/", os.sep)) else ""
    return f"{Path(path).resolve()}{slash}"
