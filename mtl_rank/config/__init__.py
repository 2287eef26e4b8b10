"""mtlrank.yaml as frozen models. Unknown keys are errors, and errors say what was meant."""

from mtl_rank.config.model import Model
from mtl_rank.config.reading import CONFIG_NAME, load_config, parse_config, parse_settings
from mtl_rank.config.sections import (
    ContextOptions,
    Fit,
    InputOptions,
    ProjectConfig,
    Split,
    Task,
    Truth,
    Weighting,
)

__all__ = [
    "CONFIG_NAME",
    "ContextOptions",
    "Fit",
    "InputOptions",
    "Model",
    "ProjectConfig",
    "Split",
    "Task",
    "Truth",
    "Weighting",
    "load_config",
    "parse_config",
    "parse_settings",
]
