"""Which labelled rows are measured."""

from dataclasses import dataclass
from datetime import datetime

from mtl_rank.config import ProjectConfig
from mtl_rank.errors import ConfigError, DataError, did_you_mean


class EmptyWindow(DataError):
    """No labelled row lies in the window."""


@dataclass(frozen=True)
class Window:
    """The rows to measure: start <= event_timestamp < end, None = open."""

    name: str
    start: datetime | None = None
    end: datetime | None = None


def split_window(config: ProjectConfig, split: str) -> Window:
    """The window of a split of the project. Raises ConfigError for a name that is none."""
    windows = {
        "train": Window("train", None, config.split.valid),
        "valid": Window("valid", config.split.valid, config.split.test),
        "test": Window("test", config.split.test, config.split.end),
    }
    if split not in windows:
        raise ConfigError(f"--split: there is no split {split!r}; {did_you_mean(split, windows)}")
    return windows[split]
