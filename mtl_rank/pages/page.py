"""A page: style, content, charts, and the script that draws them, in one file."""

import json
from importlib.resources import files
from pathlib import Path

from mtl_rank.errors import MtlRankError
from mtl_rank.pages.files import write_whole
from mtl_rank.pages.markup import Figures, Html, text
from mtl_rank.pages.vega import vega_script


def save_page(path: Path, title: str, body: Html, figures: Figures) -> None:
    """Write a page that needs nothing beside it. Raises MtlRankError when it cannot be written."""
    # `<` is escaped so that no text of a chart can end the script element.
    specs = json.dumps(figures.specs, allow_nan=False).replace("<", "\\u003c")
    resources = files("mtl_rank.pages")
    style, draw = (resources.joinpath(name).read_text(encoding="utf-8") for name in ("look.css", "draw.js"))
    # Vega is most of the page, and nothing to do for a page without charts.
    scripts = f"<script>{vega_script()}</script>\n<script>\n{draw}</script>" if figures.specs else ""
    page = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{text(title)}</title>
<style>
{style}</style>
</head>
<body>
<main>
{body}
</main>
<script type="application/json" id="charts">{specs}</script>
{scripts}
</body>
</html>
"""
    try:
        write_whole(path, page)
    except OSError as error:
        raise MtlRankError(f"{path} cannot be written: {error.strerror}") from error
