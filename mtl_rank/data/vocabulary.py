"""From values to ids: 0 = missing, 1 = unseen, 2.. = the values of the training rows."""

import hashlib
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from mtl_rank.errors import DataError

MISSING, UNSEEN, FIRST = 0, 1, 2
Ids = npt.NDArray[np.int32]
Family = Literal["integer", "text", "boolean", "time", "unknown"]

# Integers are looked up in an array when it stays within this many entries, 256 MB at the most.
_LOOKUP_LIMIT = 1 << 26


def family_of(dtype: pl.DataType, origin: str) -> Family:
    """The family a column of this type belongs to. Raises DataError for types that are not ids.

    Floats count as integers, since stores that go through pandas turn integers with nulls into floats.
    """
    if dtype.is_integer() or dtype.is_float():
        return "integer"
    if dtype in (pl.String, pl.Categorical) or isinstance(dtype, pl.Enum):
        return "text"
    if dtype == pl.Boolean:
        return "boolean"
    if dtype.is_temporal():
        return "time"
    raise DataError(f"{origin}: values of type {dtype} cannot be ids; give the input role dense or ignore")


def as_keys(values: pl.Series, family: Family, origin: str) -> pl.Series:
    """The values as Int64 or String keys, exactly; nulls stay null.

    Floats are taken for integers only where they are whole and too small to have been rounded. Times are
    the same key in every unit, a date being its midnight. A column without a value in training (family
    unknown) takes any type. Raises DataError when the column changed its type.
    """
    if values.dtype.is_float():
        values = values.fill_nan(None)
    dtype = values.dtype
    if family == "unknown":
        return values.is_not_null().cast(pl.Int64).replace({0: None})
    if family == "integer" and dtype.is_float():
        digits = 24 if dtype == pl.Float32 else 53
        if ((values != values.round()) | (values.abs() >= 2**digits)).any():
            raise DataError(
                f"{origin}: ids arrive as {dtype} and are not whole numbers below 2**{digits}; "
                "give the input role dense or ignore"
            )
        return values.cast(pl.Int64)
    if dtype == pl.Null:
        return values.cast(pl.String if family == "text" else pl.Int64)
    found = family_of(dtype, origin)
    if found != family:
        raise DataError(f"{origin}: was {family} when the encoder was fitted and is {found} ({dtype}) now")
    if family == "text":
        return values.cast(pl.String)
    if dtype == pl.Date:
        return values.cast(pl.Datetime("us")).cast(pl.Int64)
    if dtype in (pl.Datetime, pl.Duration):
        return values.dt.cast_time_unit("us").cast(pl.Int64)
    # The same bits read as signed: ids above 2**63 stay distinct.
    return values.reinterpret(signed=True) if dtype == pl.UInt64 else values.cast(pl.Int64)


class Lookup(Protocol):
    """Values of one input to ids within the input, int32 (N,)."""

    @property
    def family(self) -> Family: ...

    @property
    def size(self) -> int: ...

    def ids(self, keys: pl.Series) -> Ids: ...


@dataclass(frozen=True)
class Hashed:
    """Ids by a salted hash into `buckets` rows: no vocabulary to learn, collisions possible."""

    family: Family
    buckets: int
    salt: str

    @property
    def size(self) -> int:
        return FIRST + self.buckets

    def ids(self, keys: pl.Series) -> Ids:
        seed = int.from_bytes(hashlib.blake2b(self.salt.encode(), digest_size=8).digest(), "little")
        if keys.dtype == pl.String:
            hashed = _hash_text(keys, self.salt)
        else:
            hashed = _splitmix64(keys.fill_null(0).to_numpy().view(np.uint64) ^ np.uint64(seed))
        ids = (hashed % np.uint64(self.buckets)).astype(np.int32) + np.int32(FIRST)
        ids[keys.is_null().to_numpy()] = MISSING
        return ids


class Vocabulary:
    """Ids by position in a sorted list of the values seen in training.

    keys: distinct, sorted, without null.
    """

    def __init__(self, family: Family, keys: pl.Series) -> None:
        self.family = family
        self.keys = keys
        self._enum: pl.Enum | None = None
        self._table: Ids | None = None
        self._lowest = 0
        if family == "text":
            self._enum = pl.Enum(keys)
        elif len(keys):
            self._lowest, highest = int(keys[0]), int(keys[-1])
            span = highest - self._lowest + 1
            if span <= min(_LOOKUP_LIMIT, 64 * len(keys) + (1 << 16)):
                self._table = np.full(span, UNSEEN, np.int32)
                self._table[keys.to_numpy() - self._lowest] = np.arange(FIRST, FIRST + len(keys))

    @property
    def size(self) -> int:
        return FIRST + len(self.keys)

    def ids(self, keys: pl.Series) -> Ids:
        if self._enum is not None:
            position = keys.cast(self._enum, strict=False).to_physical()
            ids = (position.cast(pl.Int32) + FIRST).fill_null(UNSEEN).to_numpy(writable=True)
        else:
            ids = self._integer_ids(keys.fill_null(0).to_numpy())
        ids[keys.is_null().to_numpy()] = MISSING
        return ids

    def _integer_ids(self, values: npt.NDArray[np.int64]) -> Ids:
        if not len(self.keys):
            return np.full(len(values), UNSEEN, np.int32)
        if self._table is not None:
            last = self._lowest + len(self._table) - 1
            inside = (values >= self._lowest) & (values <= last)
            return np.where(inside, self._table[np.clip(values, self._lowest, last) - self._lowest], UNSEEN)
        known = self.keys.to_numpy()
        position = np.minimum(np.searchsorted(known, values), len(known) - 1)
        return np.where(known[position] == values, position + FIRST, UNSEEN).astype(np.int32)


class ValueCounter:
    """Counts the values of one input over streamed batches; memory grows with distinct values only."""

    _COMPACT_EVERY = 32

    def __init__(self) -> None:
        self._parts: list[pl.DataFrame] = []

    def add(self, keys: pl.Series) -> None:
        counted = keys.drop_nulls().rename("key").value_counts(name="count")
        self._parts.append(counted.with_columns(pl.col("count").cast(pl.Int64)))
        if len(self._parts) >= self._COMPACT_EVERY:
            self._parts = [self._total()]

    def frequent(self, min_count: int, max_size: int | None) -> pl.Series:
        """Values seen at least `min_count` times, the `max_size` most frequent, sorted by value."""
        kept = self._total().filter(pl.col("count") >= min_count)
        if max_size is not None:
            kept = kept.sort("count", "key", descending=[True, False]).head(max_size)
        return kept["key"].sort()

    def _total(self) -> pl.DataFrame:
        return pl.concat(self._parts).group_by("key").agg(pl.col("count").sum())


def _splitmix64(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele et al. 2014): the same on every machine and version."""
    with np.errstate(over="ignore"):
        x = x + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def _hash_text(keys: pl.Series, salt: str) -> npt.NDArray[np.uint64]:
    """BLAKE2b of each distinct text; library hashes change between versions, and ids must not."""
    prefix = salt.encode() + b"\0"
    distinct = keys.fill_null("").unique()
    digests = [
        int.from_bytes(hashlib.blake2b(prefix + text.encode(), digest_size=8).digest(), "little")
        for text in distinct
    ]
    position = keys.fill_null("").cast(pl.Enum(distinct)).to_physical().to_numpy()
    hashes: npt.NDArray[np.uint64] = np.array(digests, np.uint64)[position]
    return hashes
