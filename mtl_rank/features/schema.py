"""What the model reads: one spec per input, taken from a Feast FeatureService and its field tags."""

import json
from collections.abc import Mapping
from typing import Any, Literal

import feast
from feast.types import Array, FeastType, PrimitiveFeastType
from pydantic import BaseModel, ConfigDict, ValidationError

from mtl_rank.config import ContextOptions, InputOptions
from mtl_rank.errors import ConfigError, did_you_mean

TAG_PREFIX = "mtlrank."
Role = Literal["categorical", "dense", "sequence", "bag"]

_WHOLE = {PrimitiveFeastType.INT32, PrimitiveFeastType.INT64}
_REAL = {PrimitiveFeastType.FLOAT32, PrimitiveFeastType.FLOAT64}
_TEXT = {PrimitiveFeastType.STRING, PrimitiveFeastType.BOOL, PrimitiveFeastType.UUID}
_TIME = {PrimitiveFeastType.UNIX_TIMESTAMP}
_FIELD_OPTIONS = sorted(InputOptions.model_fields)


class Input(BaseModel):
    """One model input: a column of the retrieved table and how it is encoded.

    origin: where it is defined, for messages ("user_profile.age", "context.hour", "entity user").
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    origin: str
    role: Role
    options: InputOptions
    at_scoring: int | float | str | bool | None = None


class FeatureSchema(BaseModel):
    """Every model input in a fixed order, and the keys that the retrieval needs.

    join_keys: the entity columns that entity rows must have.
    request_columns: columns that on-demand views read from the entity rows.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    service: str
    join_keys: tuple[str, ...]
    request_columns: tuple[str, ...]
    inputs: tuple[Input, ...]

    def with_role(self, *roles: Role) -> tuple[Input, ...]:
        return tuple(spec for spec in self.inputs if spec.role in roles)

    @property
    def context(self) -> tuple[Input, ...]:
        return tuple(spec for spec in self.inputs if spec.origin.startswith("context."))


def read_schema(
    store: feast.FeatureStore, service: feast.FeatureService, context: Mapping[str, ContextOptions]
) -> FeatureSchema:
    """The inputs of `service`: its join keys, its features, then the context columns.

    Raises ConfigError naming the view and the field for a tag or a sharing that makes no sense.
    """
    inputs: dict[str, Input] = {}
    types: dict[str, FeastType] = {}
    join_keys: dict[str, None] = {}
    request: dict[str, None] = {}
    for projection in service.feature_view_projections:
        view = store.registry.get_any_feature_view(projection.name, store.project)
        if isinstance(view, feast.OnDemandFeatureView):
            request.update(dict.fromkeys(view.get_request_data_schema()))
            sources = [source.name for source in view.source_feature_view_projections.values()]
        else:
            sources = [view.name]
        for source in sources:
            for key, spec in _join_keys(store, source, projection.join_key_map).items():
                join_keys[key] = None
                if spec is not None:
                    inputs.setdefault(key, spec)
        for field in projection.features:
            types[f"{projection.name_to_use()}__{field.name}"] = field.dtype
            spec = _feature_input(projection.name_to_use(), projection.name, field)
            if spec is not None:
                inputs[spec.name] = spec
    for name, options in context.items():
        if name in join_keys:
            raise ConfigError(
                f"context.{name}: it is a join key; tags of its entity say what the model makes of it"
            )
        spec = _context_input(name, options)
        if spec is not None:
            inputs[name] = spec
    _check_sharing(inputs)
    _check_times(inputs, types)
    return FeatureSchema(
        service=service.name,
        join_keys=tuple(join_keys),
        request_columns=tuple(request),
        inputs=tuple(inputs.values()),
    )


def _join_keys(
    store: feast.FeatureStore, view_name: str, join_key_map: Mapping[str, str]
) -> dict[str, Input | None]:
    """Join keys of a view under the names that entity rows use for them; None where `role` is ignore."""
    view = store.registry.get_any_feature_view(view_name, store.project)
    keys: dict[str, Input | None] = {}
    for entity_name in view.entities:
        if entity_name == feast.feature_view.DUMMY_ENTITY_NAME:
            continue
        entity = store.registry.get_entity(entity_name, store.project)
        key = join_key_map.get(entity.join_key, entity.join_key)
        options = _options_from_tags(entity.tags, f"entity {entity.name}")
        role = options.role or "categorical"
        if role == "ignore":
            keys[key] = None
        elif role != "categorical":
            raise ConfigError(
                f"entity {entity.name}: tag {TAG_PREFIX}role={role}: a join key is categorical or ignore"
            )
        else:
            keys[key] = Input(name=key, origin=f"entity {entity.name}", role=role, options=options)
    return keys


def _feature_input(shown_name: str, view_name: str, field: feast.Field) -> Input | None:
    origin = f"{view_name}.{field.name}"
    options = _options_from_tags(field.tags, origin)
    role = _fitting_role(origin, field.dtype, options.role)
    if role is None:
        return None
    return Input(name=f"{shown_name}__{field.name}", origin=origin, role=role, options=options)


def _context_input(name: str, options: ContextOptions) -> Input | None:
    role = options.role or "categorical"
    if role == "ignore":
        return None
    fields = options.model_dump(exclude={"at_scoring"})
    return Input(
        name=name,
        origin=f"context.{name}",
        role=role,
        options=InputOptions(**fields),
        at_scoring=options.at_scoring,
    )


def _options_from_tags(tags: Mapping[str, str], origin: str) -> InputOptions:
    raw: dict[str, Any] = {}
    for tag, value in tags.items():
        if not tag.startswith(TAG_PREFIX):
            continue
        option = tag.removeprefix(TAG_PREFIX)
        if option not in _FIELD_OPTIONS:
            raise ConfigError(f"{origin}: unknown tag {tag!r}; {did_you_mean(option, _FIELD_OPTIONS)}")
        raw[option] = value
    try:
        return InputOptions.model_validate(raw)
    except ValidationError as error:
        problem = error.errors()[0]
        raise ConfigError(
            f"{origin}: tag {TAG_PREFIX}{problem['loc'][0]}={problem['input']!r}: {problem['msg'].lower()}"
        ) from None


def _fitting_role(origin: str, dtype: FeastType, wanted: str | None) -> Role | None:
    """The role of a feature of this type; None when it is left out. Raises ConfigError when they do not fit."""
    default, possible = _roles_of(dtype)
    if wanted == "ignore":
        return None
    if wanted is None:
        if default is None:
            raise ConfigError(
                f"{origin}: type {dtype} cannot be read by the model; tag it {TAG_PREFIX}role=ignore"
            )
        return default
    for role in possible:
        if role == wanted:
            return role
    able = ", ".join([*possible, "ignore"])
    raise ConfigError(f"{origin}: {TAG_PREFIX}role={wanted} does not fit type {dtype}; it takes {able}")


def _roles_of(dtype: FeastType) -> tuple[Role | None, tuple[Role, ...]]:
    if isinstance(dtype, Array):
        whole_or_text = dtype.base_type in _WHOLE | _TEXT
        return ("sequence", ("sequence", "bag")) if whole_or_text else (None, ())
    if dtype in _REAL:
        return "dense", ("dense",)
    if dtype in _WHOLE or dtype == PrimitiveFeastType.BOOL:
        return "categorical", ("categorical", "dense")
    if dtype in _TEXT:
        return "categorical", ("categorical",)
    if dtype in _TIME:
        return None, ("categorical",)
    return None, ()


def _check_sharing(inputs: Mapping[str, Input]) -> None:
    for spec in inputs.values():
        target = spec.options.shares
        if target is None:
            continue
        if spec.role == "dense":
            raise ConfigError(f"{spec.origin}: shares={target!r}: a dense input has no embedding to share")
        if target not in inputs:
            raise ConfigError(
                f"{spec.origin}: shares={target!r} is no model input; {did_you_mean(target, inputs)}"
            )
        owner = inputs[target]
        if owner.role == "dense" or owner.options.shares is not None or owner is spec:
            raise ConfigError(f"{spec.origin}: shares={target!r}, which has no embedding of its own")
        if spec.options.dim not in (None, owner.options.dim):
            raise ConfigError(
                f"{spec.origin}: dim differs from that of {target!r}, whose embedding it shares"
            )


def _check_times(inputs: Mapping[str, Input], types: Mapping[str, FeastType]) -> None:
    """types: of every feature of the service, those that are no input among them."""
    for spec in inputs.values():
        times = spec.options.times
        if times is None:
            continue
        if spec.role != "sequence":
            raise ConfigError(
                f"{spec.origin}: times={times!r}: only a sequence has times, this is a {spec.role}"
            )
        if times not in types:
            raise ConfigError(
                f"{spec.origin}: times={times!r} is no feature of the service; {did_you_mean(times, types)}"
            )
        dtype = types[times]
        if not (isinstance(dtype, Array) and dtype.base_type == PrimitiveFeastType.UNIX_TIMESTAMP):
            raise ConfigError(f"{spec.origin}: times={times!r} is {dtype}; it must be Array(UnixTimestamp)")


def service_fingerprint_parts(schema: FeatureSchema) -> str:
    """A canonical text of the schema, to be hashed: equal texts mean equal inputs."""
    return json.dumps(schema.model_dump(mode="json"), sort_keys=True)
