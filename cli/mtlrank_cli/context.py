"""Which project a command works on, and which paths are meant."""

import glob
import os
import re
from pathlib import Path

import typer

from mtl_rank.errors import ConfigError

CONFIG_NAME = "mtlrank.yaml"
_DATABASE = re.compile(r"(.+\.(?:duckdb|ddb|db))(:[^:]+)?")


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


def rows_from_here(text: str) -> str:
    """Rows that an option names: a path that the current folder has made absolute; any other is the project's.

    text: a parquet path, folder or glob, `file.duckdb` or `file.duckdb:table`; SQL stays as it is.
    """
    database = _DATABASE.fullmatch(text)
    path, table = database.groups(default="") if database else (text, "")
    # Whatever is no path, such as SQL, simply does not exist.
    if os.path.exists(path):  # noqa: PTH110, Path.exists raises for a text that is too long for a name
        return f"{Path(path).absolute()}{table}"
    if glob.glob(path, recursive=True):  # noqa: PTH207, Path.glob takes no absolute pattern
        return str(Path(glob.escape(str(Path.cwd()))) / path)
    return text
