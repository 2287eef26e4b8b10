"""New projects from a template: files, data and an applied feature registry."""

import shutil
import subprocess
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from mtl_rank.config import CONFIG_NAME
from mtl_rank.datasets.kuairand import import_kuairand
from mtl_rank.errors import ConfigError, MtlRankError, did_you_mean
from mtl_rank.progress import Reporter

TEMPLATES = ("shop", "kuairand")
# What is registered or written while working in a checkout is not part of the template.
_NOT_COPIED = shutil.ignore_patterns("__pycache__", "*.db", "registry*", "online*")


def create_project(folder: Path, template: str, source: Path | None, reporter: Reporter) -> None:
    """Make a project in the new or empty `folder` and apply its feature repository.

    Raises ConfigError for an unknown template or a missing source, MtlRankError when the folder is taken.
    """
    if template not in TEMPLATES:
        raise ConfigError(f"--template: there is no {template!r}; {did_you_mean(template, TEMPLATES)}")
    if template != "kuairand" and source is not None:
        raise ConfigError(f"--source: template {template} brings its own data; leave it out")
    if template == "kuairand":
        if source is None:
            raise ConfigError("--template kuairand: needs --source, the folder with the published files")
        reporter.stage("import kuairand", None)
        import_kuairand(source, folder, reporter.say)
    else:
        _copy_shop(folder)
    reporter.stage("feast apply", None)
    apply_features(folder / "feature_repo")


def apply_features(repository: Path) -> None:
    """`feast apply` in a process of its own, since Feast imports the repository's modules by their bare names.

    Raises ConfigError with Feast's last line when it fails.
    """
    command = [
        sys.executable,
        "-c",
        "from feast.cli.cli import cli; cli()",
        "--chdir",
        str(repository),
        "apply",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
        raise ConfigError(f"feast apply failed in {repository}: {lines[-1]}")


def _copy_shop(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise MtlRankError(f"{folder} is not an empty folder; give a new one, nothing is overwritten")
    origin = _shop_template()
    folder = folder.resolve()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MtlRankError(f"{folder.parent} cannot be made: {error.strerror}") from None
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
        project = Path(scratch) / "project"
        project.mkdir()
        shutil.copy(origin / CONFIG_NAME, project)
        for part in ("feature_repo", "data"):
            shutil.copytree(origin / part, project / part, ignore=_NOT_COPIED)
        (project / ".gitignore").write_text(
            "runs/\ncache/\ntune/\nfeature_repo/data/\n*.duckdb\n", encoding="utf-8"
        )
        _publish(project, folder)


def _publish(project: Path, folder: Path) -> None:
    if not folder.exists():
        project.rename(folder)
        return
    # An empty folder may be someone's current one: it is filled, last with what makes it a project.
    for part in sorted(project.iterdir(), key=lambda path: path.name == CONFIG_NAME):
        part.rename(folder / part.name)


def _shop_template() -> Path:
    """In an installed package the template lies inside it; in a checkout it is the checkout."""
    installed = Path(str(files("mtl_rank"))) / "_templates" / "shop"
    return installed if installed.is_dir() else Path(__file__).resolve().parents[2]
