"""DuckDB types as far as a join must know them: what can be compared with what, and what is a time."""

from mtl_rank.errors import DataError

_WHOLE_BELOW = {"FLOAT": 2**24, "DOUBLE": 2**53}
_NUMBERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "FLOAT", "DOUBLE", "DECIMAL")


def family(kind: str) -> str:
    """The types that a type can be compared with, under one name. An all-null column fits everything.

    >>> family("UBIGINT"), family("VARCHAR"), family("DATE")
    ('number', 'text', 'time')
    """
    if kind == '"NULL"':
        return "null"
    if kind.removeprefix("U").startswith(_NUMBERS):
        return "number"
    if kind.startswith(("TIMESTAMP", "DATE")):
        return "time"
    if kind.startswith(("VARCHAR", "ENUM", "UUID")):
        return "text"
    return kind


def check_joinable(entity: str, entity_kind: str, source: str, source_kind: str, label: str) -> None:
    """Raises DataError when a key has one kind of value in the entity rows and another in the source."""
    families = {family(entity_kind), family(source_kind)} - {"null"}
    if len(families) > 1:
        raise DataError(
            f"{label}: join key {entity!r} is {entity_kind} in the entity rows but {source!r} is {source_kind} "
            "in its source; cast one of them"
        )


def rounded_from(kind: str, other: str) -> int | None:
    """The whole number from which on two types of key confuse neighbours when compared; None when they never do.

    >>> rounded_from("DOUBLE", "BIGINT"), rounded_from("BIGINT", "BIGINT"), rounded_from("DOUBLE", "DOUBLE")
    (9007199254740992, None, None)
    """
    if family(kind) != family(other) or (kind in _WHOLE_BELOW) == (other in _WHOLE_BELOW):
        return None
    return min(_WHOLE_BELOW.get(each, 2**53) for each in (kind, other))


def check_time(column: str, kind: str, label: str) -> None:
    """Raises DataError when a column cannot be a point in time. Text may be one."""
    if family(kind) not in ("time", "text", "null"):
        raise DataError(f"{label}: column {column!r} of its source is {kind}, not a timestamp")
