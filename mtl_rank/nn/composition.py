"""The parts that a composition is made of, and which of them go together."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain

from mtl_rank.config import Model, Task
from mtl_rank.errors import ConfigError, did_you_mean
from mtl_rank.nn.branches import BRANCHES, STACKABLE
from mtl_rank.nn.heads import HEADS, Relations
from mtl_rank.nn.init import INITS
from mtl_rank.nn.layers import ACTIVATIONS, NORMS
from mtl_rank.nn.layout import IdColumn, Layout, SequenceColumn
from mtl_rank.nn.sequences import NO_SEQUENCES, SEQUENCES
from mtl_rank.nn.wide import BIN_SUFFIX, column_named


@dataclass(frozen=True)
class Parts:
    """The parts of a composition, by their names in the tables of trunks, branches, sequences and heads."""

    trunk: str
    branches: tuple[str, ...]
    sequences: str
    heads: str


def check_parts(parts: Parts, model: Model) -> None:
    """Raises ConfigError for a part that does not exist, or options that cannot work with any data."""
    for branch in parts.branches:
        _check_known("branches", branch, BRANCHES)
    _check_known("sequences", parts.sequences, [*SEQUENCES, NO_SEQUENCES])
    _check_known("heads", parts.heads, HEADS)
    for key, known in (("activation", ACTIVATIONS), ("norm", NORMS), ("init", INITS)):
        _check_known(key, getattr(model, key), known)
    if model.dim == "auto":
        _refuse_fields(parts, model, "model.dim=auto gives several")
    if model.cross.experts > 1 and model.cross.rank is None:
        raise ConfigError("model.cross.experts: the mixture is of low-rank experts; set model.cross.rank too")
    crossing = [branch for branch in parts.branches if branch in STACKABLE]
    if model.cross.stacked and len(crossing) != 1:
        raise ConfigError(
            f"model.cross.stacked: one cross network can stand in front of the trunk, there are {len(crossing)}; "
            f"put one of {', '.join(STACKABLE)} into model.branches"
        )
    if model.wide.crosses and "wide" not in parts.branches:
        raise ConfigError(
            "model.wide.crosses: there is no wide branch to use them; put wide into model.branches or leave them out"
        )
    for key in ("expert_layers", "bottom_layers", "cin_layers"):
        if not getattr(model, key):
            raise ConfigError(f"model.{key}: needs at least one width")
    if not model.history.attention_layers:
        raise ConfigError("model.history.attention_layers: needs at least one width")


def check_relations(parts: Parts, relations: Relations) -> None:
    """Raises ConfigError when the tasks are not such as the composition needs."""
    tasks = len(relations.given)
    if parts.trunk == "ple" and tasks == 1:
        raise ConfigError(
            "model.name: ple parts experts between tasks and there is one task; use dnn, or mmoe for a mixture"
        )
    if parts.heads == "esmm" and not any(
        binary and given is not None for binary, given in zip(relations.binary, relations.given, strict=True)
    ):
        raise ConfigError(
            "model.heads: esmm needs a binary task with `given`, such as cvr given ctr; add `given` to a task "
            "or use dnn"
        )
    if parts.heads == "aitm":
        if tasks == 1:
            raise ConfigError(
                "model.heads: aitm passes information from task to task and there is one; use dnn"
            )
        if any(given is not None and given > task for task, given in enumerate(relations.given)):
            raise ConfigError(
                "model.heads: aitm passes information in the order of the tasks; put each task behind the one it "
                "is given"
            )


def check_losses(parts: Parts, tasks: Mapping[str, Task]) -> None:
    """Raises ConfigError for a loss that takes the rate of its task, where its labels become those of a product."""
    for name, task in tasks.items() if parts.heads == "esmm" else ():
        if task.given is not None and task.loss is not None and (task.loss.balanced or task.loss.smoothing):
            raise ConfigError(
                f"tasks.{name}.loss: under esmm {name} is trained as a product on every row, whose rate is another: "
                "leave out balanced and smoothing"
            )
        if task.inverse_propensity is not None:
            raise ConfigError(
                f"tasks.{name}.inverse_propensity: under esmm {name} is trained on every row already; leave it out"
            )


def check_inputs(parts: Parts, model: Model, layout: Layout) -> None:
    """Raises ConfigError when the inputs are not such as the composition needs."""
    _check_history(parts, model, layout)
    if len(layout.dims) > 1:
        _refuse_fields(parts, model, f"these are {' and '.join(map(str, layout.dims))} wide")
    columns: list[IdColumn | SequenceColumn] = [*layout.ids, *layout.sequences]
    known = [column.name for column in columns if not column.name.endswith(BIN_SUFFIX)]
    for name in model.pretrained:
        if name not in known:
            raise ConfigError(f"model.pretrained: there is no id input {name!r}; {did_you_mean(name, known)}")
    for name in chain.from_iterable(model.wide.crosses):
        column_named(layout, name)


def _refuse_fields(parts: Parts, model: Model, widths: str) -> None:
    reading = [name for name in parts.branches if BRANCHES[name].reads_fields]
    if reading and model.fields.embeddings == "shared":
        raise ConfigError(
            f"model.branches: {reading[0]} multiplies embeddings of one width, and {widths}; "
            "set model.fields.embeddings=independent or equal dims"
        )


def _check_history(parts: Parts, model: Model, layout: Layout) -> None:
    if parts.sequences in (NO_SEQUENCES, "mean"):
        return
    encoder = SEQUENCES[parts.sequences]
    if not any(encoder.fits(column) for column in layout.sequences):
        kind = "a history in time order" if encoder.needs_order else "a history"
        shared = (
            " that shares the embedding of an id input (tag mtlrank.shares)" if encoder.needs_target else ""
        )
        raise ConfigError(
            f"model.sequences: {parts.sequences} needs {kind}{shared}, and there is none; use mean or none"
        )
    odd = [c for c in layout.sequences if encoder.fits(c) and layout.dims[c.table] % model.history.heads]
    if parts.sequences == "bst" and odd:
        raise ConfigError(
            f"model.history.heads: {model.history.heads} heads do not divide the embedding of {odd[0].name}, "
            f"{layout.dims[odd[0].table]} wide"
        )


def _check_known(key: str, name: str, known: Iterable[str]) -> None:
    known = list(known)
    if name not in known:
        raise ConfigError(f"model.{key}: there is no {name!r}; {did_you_mean(name, known)}")
