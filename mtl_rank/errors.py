"""What a user can mend: every message says what is wrong, where, and what to do."""

import errno
from collections.abc import Iterable
from difflib import get_close_matches


class MtlRankError(Exception):
    """Base of everything a user can mend. The command line prints it and exits with 2."""


class ConfigError(MtlRankError):
    """mtlrank.yaml, an option or a feature definition is wrong."""


class DataError(MtlRankError):
    """A table is missing, has the wrong shape or holds values that cannot be right."""


class RunError(MtlRankError):
    """A run does not exist, is not finished or does not fit what is asked of it."""


class ScoresError(MtlRankError):
    """A scores table cannot take what is to be written to it."""


def is_full_disk(error: BaseException) -> bool:
    """Whether it says that there is no room for a file: disk, quota or limit on its size.

    Libraries of other languages pass on the system's words, not its number.
    """
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return True
    return any(words in str(error) for words in ("No space left", "quota exceeded", "File too large"))


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A half sentence naming the nearest valid name, or all of them when none is near.

    >>> did_you_mean("ctrr", ["ctr", "cvr"])
    "did you mean 'ctr'?"
    """
    names = sorted(known)
    near = get_close_matches(name, names, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"known: {', '.join(names)}" if names else "none is known"
