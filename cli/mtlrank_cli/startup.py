"""What makes a command start sooner."""

from typing import TypeVar

Target = TypeVar("Target")


def skip_rewriting_feast() -> None:
    """Import Feast without having its classes rewritten: 1 s in place of 4.

    Feast decorates them with typeguard's `typechecked`, which parses and compiles each anew in every process, to
    check the types of arguments. Under `python -O` that is a no-op, and so it is here. What users define in a
    feature repository is checked by `feast apply`.
    """
    import typeguard

    def typechecked(target: Target) -> Target:
        return target

    # Feast uses it without options only.
    typeguard.typechecked = typechecked  # type: ignore[assignment]
