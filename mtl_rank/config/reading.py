"""From the text of mtlrank.yaml to its sections, and from what is wrong in it to one line."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from mtl_rank.config.sections import ProjectConfig
from mtl_rank.errors import ConfigError, did_you_mean

CONFIG_NAME = "mtlrank.yaml"


class _UniqueKeys(yaml.SafeLoader):
    """YAML without its trap: of a key that is written twice, the first value would be lost without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in keys:
                raise yaml.MarkedYAMLError(
                    problem=f"{key.value!r} is there twice", problem_mark=key.start_mark
                )
            keys.add(key.value)
        return super().construct_mapping(node, deep)


def load_config(project: Path, settings: Mapping[str, Any] | None = None) -> ProjectConfig:
    """Read `project/mtlrank.yaml`; `settings` maps dotted keys (`model.experts`) to values that override it.

    Raises ConfigError when the file is missing, is not YAML, or does not fit the models above.
    """
    path = project / CONFIG_NAME
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"no {CONFIG_NAME} in {project}; `mtlrank init DIR` makes a project") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    return parse_config(text, str(path), settings or {})


def parse_config(text: str, origin: str, settings: Mapping[str, Any] | None = None) -> ProjectConfig:
    """Parse the text of a configuration; `origin` names it in errors."""
    try:
        raw = yaml.load(text, _UniqueKeys)
    except (yaml.YAMLError, ValueError) as error:
        # What looks like a date and is none is a ValueError.
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or error
        raise ConfigError(f"{origin}{where}: not YAML: {problem}") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{origin}: must be a mapping of sections such as tasks: and split:")
    for key, value in (settings or {}).items():
        _override(raw, key, value)
    try:
        return ProjectConfig.model_validate(raw)
    except ValidationError as error:
        # Of a misspelt key both the wrong and the missing name are reported: the wrong one says more.
        problem = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
        key = ".".join(map(str, problem["loc"]))
        if any(f"{key}.".startswith(f"{given}.") for given in settings or {}):
            origin = "option on the command line"
        raise ConfigError(f"{origin}: {_explain(problem)}") from None


def parse_settings(pairs: Iterable[str]) -> dict[str, Any]:
    """`["model.experts=8"]` -> `{"model.experts": 8}`; values are YAML. Raises ConfigError."""
    settings = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"--set {pair}: write key=value, such as --set model.experts=8")
        try:
            settings[key.strip()] = yaml.safe_load(value)
        except (yaml.YAMLError, ValueError):
            raise ConfigError(f"--set {pair}: {value!r} is not a YAML value") from None
    return settings


def _override(raw: dict[str, Any], dotted: str, value: object) -> None:
    *parents, last = dotted.split(".")
    node = raw
    for part in parents:
        child = node.setdefault(part, {})
        if not isinstance(child, dict):
            raise ConfigError(f"--set {dotted}: {part!r} is a value, not a section")
        node = child
    node[last] = value


def _explain(problem: ErrorDetails) -> str:
    """A problem in one line: key, what is wrong, the nearest valid name."""
    # Pydantic adds its own words for alternatives and keys ("constrained-int", "[key]"): they are not the user's.
    parts = [str(part) for part in problem["loc"] if not re.search(r"[\[\]-]", str(part))]
    key = ".".join(parts)
    match problem["type"]:
        case "extra_forbidden":
            *parents, last = problem["loc"]
            return f"unknown key {key!r}; {did_you_mean(str(last), _keys_at(parents))}"
        case "missing":
            return f"{key!r} is missing"
        case "value_error":
            message = str(problem["ctx"]["error"])
            return f"{key}: {message}" if key else message
    shown = repr(problem["input"])
    return f"{key}: {problem['msg'][0].lower()}{problem['msg'][1:]}, got {shown[:60]}"


def _keys_at(path: Sequence[int | str]) -> list[str]:
    model: Any = ProjectConfig
    for part in path:
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        # A mapping of sections (tasks, context): its next path part is the user's own key.
        arguments = [a for a in get_args(annotation) if isinstance(a, type) and issubclass(a, BaseModel)]
        if get_origin(annotation) in (dict, Union, UnionType) and arguments:
            model = arguments[0]
        elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
            model = annotation
    return list(model.model_fields)
