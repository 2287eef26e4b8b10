"""docs/extending.md as it stands: its module, installed as a package would be, works by its name."""

import re
import sys
from pathlib import Path

import pytest
import torch
from small_task import config_of, encoded, table_of

from mtl_rank.errors import ConfigError
from mtl_rank.nn.branches import BRANCHES
from mtl_rank.nn.plugins import GROUP, load_plugins
from mtl_rank.nn.trunks import TRUNKS
from mtl_rank.nn.zoo import ZOO, build_network, check_model
from mtl_rank.progress import Silent
from mtl_rank.training.fit import fit

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Lay out a package with an entry point and take back what it added."""
    tables = [(table, dict(table)) for table in (ZOO, TRUNKS, BRANCHES)]

    def installed(module, code):
        (tmp_path / f"{module}.py").write_text(code, encoding="utf-8")
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{GROUP}]\n{module} = {module}\n")
        load_plugins.cache_clear()

    monkeypatch.syspath_prepend(tmp_path)
    yield installed
    for table, before in tables:
        table.clear()
        table.update(before)
    sys.modules.pop("my_models", None)
    load_plugins.cache_clear()


def test_the_module_of_the_page_trains_by_its_name(install, tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    install("my_models", code)
    config = config_of(model={"name": "squared", "bottom_layers": [8], "tower_layers": []})
    data = encoded(tmp_path / "data", config, table_of(1000, seed=1), table_of(200, seed=2))
    (tmp_path / "run").mkdir()
    result = fit(config, *data, tmp_path / "run", Silent())
    assert result.valid["valid/cvr/auc"] > 0.8
    # Its branch goes with any other trunk.
    mixed = build_network(
        config_of(model={"name": "ple", "branches": ["squares"]}).model, data[0].layout, torch.zeros(3)
    )
    assert mixed.branches.width == 8


def test_a_package_that_cannot_be_imported_is_named(install):
    install("broken_models", "import a_package_that_is_not_there\n")
    with pytest.raises(
        ConfigError, match=r"adds 'broken_models' .* cannot be imported: ModuleNotFoundError"
    ) as caught:
        check_model(config_of().model)
    assert len(str(caught.value).splitlines()) == 1
