"""Presets: settings by name, a file each."""

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import yaml

from mtl_rank.errors import ConfigError, did_you_mean


def preset_names() -> list[str]:
    """Every name that `preset` takes."""
    found = files(__name__).iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in found if file.name.endswith(".yaml"))


def preset(name: str) -> dict[str, Any]:
    """The settings of a preset by dotted keys, as `train` takes them. Raises ConfigError for a name that is none.

    They go before the keys of mtlrank.yaml; settings given beside them go before both.
    """
    if name not in preset_names():
        raise ConfigError(f"--preset: there is no preset {name!r}; {did_you_mean(name, preset_names())}")
    document = yaml.safe_load((files(__name__) / f"{name}.yaml").read_text(encoding="utf-8"))
    return _dotted(document)


def _dotted(section: Mapping[str, Any], parents: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in section.items():
        name = f"{parents}{key}"
        found |= _dotted(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return found
