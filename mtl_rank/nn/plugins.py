"""Models of other packages: their entry points in the group `mtl_rank.models` add to the tables."""

from functools import cache
from importlib.metadata import entry_points

from mtl_rank.errors import ConfigError

GROUP = "mtl_rank.models"


@cache
def load_plugins() -> tuple[str, ...]:
    """Import every module that an installed package names under the group; their names, once per process.

    A module adds to ZOO, TRUNKS, BRANCHES, SEQUENCES or HEADS when it is imported. Raises ConfigError for one
    that cannot be imported.
    """
    names = []
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        try:
            point.load()
        except (ImportError, AttributeError) as error:
            raise ConfigError(
                f"the package that adds {point.name!r} to the models ({point.value}) cannot be imported: "
                f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            ) from None
        names.append(point.name)
    return tuple(names)
