"""mtlrank.yaml as frozen models. Unknown keys are errors, and errors say what was meant."""

from mtl_rank.config.measuring import Calibration, Evaluation
from mtl_rank.config.model import Model
from mtl_rank.config.presets import preset, preset_names
from mtl_rank.config.reading import CONFIG_NAME, load_config, parse_config, parse_settings
from mtl_rank.config.sections import (
    ContextOptions,
    Fit,
    InputOptions,
    ProjectConfig,
    Split,
    Truth,
)
from mtl_rank.config.tasks import Loss, Task, Weighting

__all__ = [
    "CONFIG_NAME",
    "Calibration",
    "ContextOptions",
    "Evaluation",
    "Fit",
    "InputOptions",
    "Loss",
    "Model",
    "ProjectConfig",
    "Split",
    "Task",
    "Truth",
    "Weighting",
    "load_config",
    "parse_config",
    "parse_settings",
    "preset",
    "preset_names",
]
