"""Pieces of HTML. What comes in is text; what goes out is escaped."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from mtl_rank.pages.charts import Spec


class Html(str):
    """Markup that is ready to be put into a page."""


def text(value: object) -> Html:
    """Anything as text, Html as it is."""
    if isinstance(value, Html):
        return value
    return Html(escape(shown(value)))


def shown(value: object) -> str:
    """A value as people read it: None as a dash, small numbers with four digits behind the point, large with two."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4f}" if abs(value) < 10 else f"{value:,.2f}"
    return str(value)


def dotted(name: str) -> Html:
    """A name with dots, which may be broken after each of them."""
    return Html(".<wbr>".join(map(escape, name.split("."))))


def element(tag: str, *content: object, **attributes: str) -> Html:
    """`<tag class="…">content</tag>`; an attribute called css becomes class."""
    names = {"css": "class"}
    written = "".join(f' {names.get(name, name)}="{escape(value)}"' for name, value in attributes.items())
    return Html(f"<{tag}{written}>{''.join(map(text, content))}</{tag}>")


def table(
    header: Sequence[str], rows: Iterable[Sequence[object]], css: Sequence[str | None] | None = None
) -> Html:
    """A table in a box that scrolls by itself. css: a class per row."""
    rows = [list(row) for row in rows]
    numeric = [bool(rows) and all(map(_is_numeric, column)) for column in zip(*rows, strict=True)]
    numeric = numeric or [False] * len(header)
    head = element("tr", *(_cell("th", name, number) for name, number in zip(header, numeric, strict=True)))
    body = []
    for row, name in zip(rows, css or [None] * len(rows), strict=True):
        cells = [_cell("td", value, number) for value, number in zip(row, numeric, strict=True)]
        body.append(element("tr", *cells, css=name) if name else element("tr", *cells))
    return element("div", element("table", element("thead", head), element("tbody", *body)), css="scroll")


def facts(pairs: Mapping[str, object]) -> Html:
    """A list of terms and their values."""
    parts: list[Html] = []
    for term, value in pairs.items():
        parts += [element("dt", term), element("dd", value)]
    return element("dl", *parts)


class Figures:
    """Numbers the charts of a page and keeps their specifications."""

    def __init__(self) -> None:
        self.specs: dict[str, Spec] = {}

    def add(self, title: str, spec: Spec, caption: str) -> Html:
        """A card with a chart in it."""
        name = f"chart-{len(self.specs) + 1}"
        self.specs[name] = spec
        place = element("div", css="chart", id=name, role="img", **{"aria-label": f"{title}. {caption}"})
        return element("figure", element("h3", title), element("figcaption", caption), place, css="card")


def _cell(tag: str, value: object, number: bool) -> Html:
    # A long text breaks into lines rather than push the numbers out of sight.
    return element(tag, value, css="number" if number else "wrap")


def _is_numeric(value: object) -> bool:
    """Numbers, percentages and cells without a value."""
    if isinstance(value, str):
        return value == "" or value.lstrip("+-").rstrip("%").replace(".", "", 1).isdigit()
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))
