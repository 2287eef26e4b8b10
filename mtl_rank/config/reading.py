"""From the text of mtlrank.yaml to its sections, and from what is wrong in it to one line."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
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


# What is said of single tasks, by their names.
_OF_TASKS = (
    ("tasks",),
    ("weighting", "lambdas"),
    ("weighting", "schedule"),
    ("fit", "monitor_weights"),
    ("calibration", "tasks"),
)


def load_config(
    project: Path, settings: Mapping[str, Any] | None = None, tasks: Sequence[str] | None = None
) -> ProjectConfig:
    """Read `project/mtlrank.yaml`; `settings` maps dotted keys (`model.experts`) to values that override it.

    tasks: the only ones to keep, None = all. What the file says of others is left out with them; a setting that does
    is an error.
    Raises ConfigError when the file is missing, is not YAML, or does not fit the models above.
    """
    path = project / CONFIG_NAME
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"no {CONFIG_NAME} in {project}; `mtlrank init DIR` makes a project") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    config = parse_config(text, str(path), settings or {})
    if tasks is None:
        return config
    chosen = config.with_tasks(tasks)
    _check_of_tasks(settings or {}, tasks)
    return chosen


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
        raise ConfigError(f"{_blamed(problem, origin, settings or {})}: {_explain(problem)}") from None


def _blamed(problem: ErrorDetails, origin: str, settings: Mapping[str, Any]) -> str:
    """Where to look for a problem: at an option that was typed where it is about one, else in the file."""
    path = tuple(map(str, problem["loc"]))
    # What is missing is missing in its section.
    section = path[:-1] if problem["type"] == "missing" else path
    for option in settings:
        given = tuple(option.split("."))
        if path[: len(given)] == given:
            return "option on the command line"
        if section and given[: len(section)] == section:
            return f"option {option} on the command line"
    return f"{origin} with the options of the command line" if settings and not path else origin


def _check_of_tasks(settings: Mapping[str, Any], names: Sequence[str]) -> None:
    """Raises ConfigError for a setting of a task that is not among `names`: it would be ignored."""
    for option, value in settings.items():
        for path in _paths(tuple(option.split(".")), value):
            for section in _OF_TASKS:
                depth = len(section)
                if path[:depth] != section or len(path) == depth:
                    continue
                task = path[depth]
                # A whole `tasks` says which there are to choose from.
                if task not in names and option != "tasks":
                    raise ConfigError(
                        f"{option}: {task} is not trained with --tasks {','.join(names)}, "
                        "so it would be ignored; leave it out or add the task"
                    )


def _paths(path: tuple[str, ...], value: object) -> Iterator[tuple[str, ...]]:
    """The path of every value below a key that is no mapping itself."""
    if not isinstance(value, Mapping):
        yield path
        return
    for key, child in value.items():
        yield from _paths((*path, str(key)), child)


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
        child = node.get(part)
        # A section that is null has nothing in it yet.
        if not isinstance(child, dict | None):
            raise ConfigError(f"--set {dotted}: {part!r} is a value, not a section")
        # A copy, since YAML may have named the same section twice.
        copied = dict(child or {})
        node[part] = copied
        node = copied
    node[last] = value


def _explain(problem: ErrorDetails) -> str:
    """A problem in one line: key, what is wrong, the nearest valid name."""
    # Pydantic adds its own words for alternatives and keys ("constrained-int", "[key]"): they are not the user's.
    parts = [str(part) for part in problem["loc"] if not re.search(r"[\[\]-]", str(part))]
    key = ".".join(parts)
    shown = repr(problem["input"])[:60]
    match problem["type"]:
        case "extra_forbidden":
            *parents, last = problem["loc"]
            return f"unknown key {key!r}; {did_you_mean(str(last), _keys_at(parents))}"
        case "missing":
            return f"{key!r} is missing"
        case "value_error":
            message = str(problem["ctx"]["error"])
            return f"{key}: {message}" if key else message
        case "tuple_type" if isinstance(problem["input"], str | int | float):
            return f"{key}: needs a list, such as [{problem['input']}], got {shown}"
    return f"{key}: {problem['msg'][0].lower()}{problem['msg'][1:]}, got {shown}"


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
