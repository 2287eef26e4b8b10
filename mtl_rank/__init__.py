"""Multi-task ranking on a Feast feature store.

>>> import mtl_rank as mr
>>> run = mr.train("my_project", tasks=["ctr", "cvr"])  # doctest: +SKIP
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mtl_rank.workflow import (
        check,
        compare,
        describe_model,
        evaluate,
        export,
        inputs,
        inspect,
        report,
        resume,
        score,
        train,
        tune,
    )

__all__ = [
    "check",
    "compare",
    "describe_model",
    "evaluate",
    "export",
    "inputs",
    "inspect",
    "report",
    "resume",
    "score",
    "train",
    "tune",
]


def __getattr__(name: str) -> Any:
    # torch, Lightning and Feast take seconds to import: not before one of these is used.
    if name in __all__:
        from mtl_rank import workflow

        return getattr(workflow, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
