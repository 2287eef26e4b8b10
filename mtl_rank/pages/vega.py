"""Vega as one script, made once per version and user: bundling it takes seconds."""

import os
import tempfile
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path

import altair as alt
import vl_convert

from mtl_rank.pages.files import write_whole


@cache
def vega_script() -> str:
    """The JavaScript that defines `vegaEmbed`, without any reference to the network."""
    wanted = alt.SCHEMA_VERSION.removeprefix("v")
    path = _cache() / f"vega-{wanted}-{version('vl-convert-python')}.js"
    with suppress(OSError):
        return path.read_text(encoding="utf-8")
    major, minor, *_ = wanted.split(".")
    script: str = vl_convert.javascript_bundle(vl_version=f"{major}.{minor}")  # type: ignore[call-arg]
    # Inside a script element its own end tag would end it.
    script = script.replace("</script", "<\\/script")
    # A home that cannot be written to costs the seconds again, no more.
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, script)
    return script


def _cache() -> Path:
    """Where programs keep what they can make again (XDG Base Directory Specification)."""
    try:
        home = Path.home()
    except RuntimeError:
        # A user id without an account, as in some containers.
        home = Path(tempfile.gettempdir())
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "mtlrank"
