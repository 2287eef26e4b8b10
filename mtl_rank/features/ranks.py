"""One value that orders the rows of a source by (timestamp, created, position).

An ASOF join compares a single value. Packed into one integer the three sort in a third of the time that a struct
takes, and the winner's timestamp and position can be read back from it.
"""

from dataclasses import dataclass
from typing import Protocol

_SMALLEST, _LARGEST = -(2**63), 2**63 - 1
_USABLE_BITS = 126
"""Bits of a HUGEINT that stay positive, one spare for the bound above the last timestamp."""


@dataclass(frozen=True)
class Span:
    """The range of a column of timestamps, in microseconds, both ends included."""

    first: int
    last: int

    @property
    def bits(self) -> int:
        """How many bits tell these timestamps, and one more value, apart."""
        return (self.last - self.first + 2).bit_length()


class Rank(Protocol):
    """SQL that packs (timestamp, created, position) into one comparable value, and reads it back."""

    def pack(self, timestamp: str, created: str | None, position: str) -> str:
        """The rank of a row. timestamp and created are SQL in microseconds; a null created sorts first."""

    def beyond(self, time: str) -> str:
        """A value above the rank of every row with timestamp <= time, and of no other row. Null when time is."""

    def timestamp(self, rank: str) -> str:
        """The timestamp, in microseconds, inside a rank."""

    def position(self, rank: str) -> str:
        """The position inside a rank."""


def rank_for(timestamps: Span, created: Span | None, position_bits: int) -> Rank:
    """The cheapest rank that holds these ranges."""
    created_bits = created.bits if created else 0
    if timestamps.bits + created_bits + position_bits <= _USABLE_BITS:
        return PackedRank(timestamps, created, created_bits, position_bits)
    return StructRank()


@dataclass(frozen=True)
class PackedRank:
    """One HUGEINT: timestamp in the high bits, then created, then position."""

    timestamps: Span
    created: Span | None
    created_bits: int
    position_bits: int

    def pack(self, timestamp: str, created: str | None, position: str) -> str:
        high = f"({_shift(f'{timestamp} - ({self.timestamps.first})', self._low_bits)})"
        middle = ""
        if created and self.created:
            offset = f"coalesce({created} - ({self.created.first}) + 1, 0)"
            middle = f" + ({_shift(offset, self.position_bits)})"
        return f"{high}{middle} + {position}"

    def beyond(self, time: str) -> str:
        ticks = f"least({time}, {self.timestamps.last}) - ({self.timestamps.first}) + 1"
        return f"CASE WHEN {time} IS NOT NULL THEN {_shift(f'greatest({ticks}, 0)', self._low_bits)} END"

    def timestamp(self, rank: str) -> str:
        return f"(CAST({rank} >> {self._low_bits} AS BIGINT) + ({self.timestamps.first}))"

    def position(self, rank: str) -> str:
        return f"CAST({rank} & {2**self.position_bits - 1} AS BIGINT)"

    @property
    def _low_bits(self) -> int:
        return self.created_bits + self.position_bits


@dataclass(frozen=True)
class StructRank:
    """For ranges too wide for one integer, such as a created column that holds the year 1 and the year 9999."""

    def pack(self, timestamp: str, created: str | None, position: str) -> str:
        known = f"coalesce({created}, {_SMALLEST})" if created else str(_SMALLEST)
        at = f"CAST({position} AS BIGINT)"
        return f"struct_pack(ts := {timestamp}, created := CAST({known} AS BIGINT), at := {at})"

    def beyond(self, time: str) -> str:
        highest = f"struct_pack(ts := {time}, created := {_LARGEST}, at := {_LARGEST})"
        return f"CASE WHEN {time} IS NOT NULL THEN {highest} END"

    def timestamp(self, rank: str) -> str:
        return f"{rank}.ts"

    def position(self, rank: str) -> str:
        return f"{rank}.at"


def _shift(sql: str, bits: int) -> str:
    return f"CAST({sql} AS HUGEINT) << {bits}"
