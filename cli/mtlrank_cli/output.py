"""How results are printed: tables for people, one JSON document for programs."""

import json
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

_GAP = 2
# A cell with more than so many characters and spaces between them is a text, which may be wrapped at its words.
_TEXT, _NARROWEST = 40, 24


def print_json(document: Any) -> None:
    sys.stdout.write(json.dumps(document, indent=2, default=str, allow_nan=False) + "\n")


def print_line(text: str) -> None:
    sys.stdout.write(text + "\n")


def print_warning(text: str) -> None:
    """On stderr, so that it spoils no document."""
    sys.stderr.write(f"mtlrank: {text}\n")


def print_table(title: str, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Columns of numbers are right-aligned; None is shown as a dash.

    Numbers and names are never broken: on a terminal that is too narrow for the columns, each row is a record of
    "name  value" lines. Long texts are wrapped at their words.
    """
    cells = [[_shown(cell) for cell in row] for row in rows]
    console = Console(highlight=False, markup=False)
    # What goes to a file is as wide as it is.
    fitted = _fitted(header, cells, console.width) if console.is_terminal else cells
    if fitted is None:
        _print_records(console, title, header, cells)
        return
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for i, name in enumerate(header):
        numeric = cells and all(_is_number(row[i]) for row in cells)
        table.add_column(name, justify="right" if numeric else "left", no_wrap=True)
    for row in fitted:
        table.add_row(*row)
    if not console.is_terminal:
        widest = max(cell_len(title), sum(_widths(header, fitted)) + _GAP * len(header))
        console = Console(highlight=False, markup=False, width=widest)
    console.print(table)


def _fitted(header: Sequence[str], rows: list[list[str]], room: int) -> list[list[str]] | None:
    """The cells with line breaks in long texts where the columns are wider than the room; None = they do not fit."""
    widths = _widths(header, rows)
    room -= _GAP * (len(header) - 1)
    if sum(widths) <= room:
        return rows
    texts = [
        i
        for i in range(len(header))
        if any(cell_len(row[i]) > _TEXT and " " in row[i].strip() for row in rows)
    ]
    if not texts:
        return None
    each = (room - sum(width for i, width in enumerate(widths) if i not in texts)) // len(texts)
    words = [header[i] for i in texts] + [word for row in rows for i in texts for word in row[i].split()]
    if each < max(_NARROWEST, *map(cell_len, words)):
        return None
    return [
        ["\n".join(_wrapped(cell, each)) if i in texts else cell for i, cell in enumerate(row)]
        for row in rows
    ]


def _print_records(console: Console, title: str, header: Sequence[str], rows: list[list[str]]) -> None:
    """A line per cell that has a value, an empty line between rows."""
    console.print(Text(title, style="bold"))
    names = max(map(cell_len, header)) + _GAP
    for row in rows:
        for name, cell in zip(header, row, strict=True):
            if cell not in ("", "-"):
                lines = _wrapped(cell, max(console.width - names, _NARROWEST))
                label = (name + " " * (names - cell_len(name)), "bold")
                console.print(Text.assemble(label, f"\n{' ' * names}".join(lines)), soft_wrap=True)
        console.print()


def _wrapped(cell: str, width: int) -> list[str]:
    """Lines broken at spaces alone: a word that is longer than the width stays whole, to be copied as one."""
    wrapper = textwrap.TextWrapper(width, break_long_words=False, break_on_hyphens=False)
    return [part for line in cell.split("\n") for part in wrapper.wrap(line) or [""]]


def _widths(header: Sequence[str], rows: list[list[str]]) -> list[int]:
    columns = zip(header, *rows, strict=True)
    return [max(cell_len(line) for cell in column for line in cell.split("\n")) for column in columns]


def _shown(cell: Any) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, float):
        return f"{cell:.4f}"
    if isinstance(cell, int) and not isinstance(cell, bool):
        return f"{cell:,}"
    return str(cell)


def _is_number(text: str) -> bool:
    return text == "-" or text.replace(",", "").replace(".", "").replace("-", "").isdigit()
