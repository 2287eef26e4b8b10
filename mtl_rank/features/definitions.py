"""What a feature service computes, as plain data: recorded with a run, compared before the run scores."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import feast

from mtl_rank.errors import RunError
from mtl_rank.features.repository import FeatureRepository

DEFINITIONS = "features.json"


def service_definitions(repository: FeatureRepository) -> dict[str, Any]:
    """Everything that decides which values a retrieval gives, but for the rows themselves and where they lie.

    Descriptions, owners and `mtlrank.*` tags are left out: an encoder keeps those it was fitted with.
    """
    store = repository.store
    views = {}
    for projection in repository.service.feature_view_projections:
        view = store.registry.get_any_feature_view(projection.name, store.project)
        views[projection.name_to_use()] = {
            "features": {field.name: str(field.dtype) for field in projection.features},
            **(_computed(view) if isinstance(view, feast.OnDemandFeatureView) else _stored(view)),
            **({"keys_in_rows": projection.join_key_map} if projection.join_key_map else {}),
        }
    return {"service": repository.service.name, "views": views}


def fingerprint(definitions: Mapping[str, Any]) -> str:
    """Equal for equal definitions, in whatever order a service lists its views."""
    return hashlib.sha256(json.dumps(definitions, sort_keys=True).encode()).hexdigest()[:16]


def read_definitions(folder: Path) -> dict[str, Any] | None:
    """The definitions recorded in a run directory; None for a run that has none. Raises RunError when damaged."""
    path = folder / DEFINITIONS
    if not path.exists():
        return None
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}") from None
    return document


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """One half sentence for everything that is not as it was, such as `user_stats.ttl: 60.0, now 30.0`."""
    return list(_differences("", before, now))


def _differences(place: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for key in dict.fromkeys([*before, *now]):
        name = key if key in ("service", "views") or not place else f"{place}.{key}"
        name = name.removeprefix("views.")
        if key not in now:
            yield f"{name} is gone"
        elif key not in before:
            yield f"{name} is new"
        elif isinstance(before[key], dict) and isinstance(now[key], dict):
            yield from _differences(name, before[key], now[key])
        elif before[key] != now[key]:
            yield f"{name}: {before[key]}, now {now[key]}"


def _stored(view: feast.FeatureView) -> dict[str, Any]:
    source = view.batch_source
    return {
        "keys": sorted(view.join_keys),
        "ttl_days": view.ttl.total_seconds() / 86_400 if view.ttl else None,
        "timestamp": source.timestamp_field,
        "created": source.created_timestamp_column or None,
        "renamed": dict(source.field_mapping),
    }


def _computed(view: feast.OnDemandFeatureView) -> dict[str, Any]:
    code = getattr(view.feature_transformation, "udf_string", "") or ""
    return {
        "sources": sorted([*view.source_feature_view_projections, *view.get_request_data_schema()]),
        "code": hashlib.sha256(code.encode()).hexdigest()[:16],
    }
