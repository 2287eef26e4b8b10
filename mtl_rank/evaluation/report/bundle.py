"""Vega as one script, made once per version and kept beside the prepared data."""

from functools import cache
from importlib.metadata import version
from pathlib import Path

import altair as alt
import vl_convert


def vega_script(folder: Path) -> str:
    """The JavaScript that defines `vegaEmbed`, without any reference to the network. folder: where it is kept."""
    versions = f"{alt.SCHEMA_VERSION.removeprefix('v')}-{version('vl-convert-python')}"
    path = folder / f"vega-{versions}.js"
    if path.exists():
        return path.read_text(encoding="utf-8")
    script = _bundled()
    folder.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(script, encoding="utf-8")
    partial.replace(path)
    return script


@cache
def _bundled() -> str:
    major, minor, *_ = alt.SCHEMA_VERSION.removeprefix("v").split(".")
    script: str = vl_convert.javascript_bundle(vl_version=f"{major}.{minor}")  # type: ignore[call-arg]
    # Inside a script element its own end tag would end it.
    return script.replace("</script", "<\\/script")
