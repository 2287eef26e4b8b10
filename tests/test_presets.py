"""Presets: complete settings by name, before mtlrank.yaml and behind what is given beside them."""

import pytest
from harness import mtlrank

from mtl_rank.config import ProjectConfig, parse_config, preset, preset_names
from mtl_rank.errors import ConfigError
from mtl_rank.nn.zoo import check_model

PROJECT = """
feature_service: s
examples: e.parquet
split: {valid: 2026-01-02, test: 2026-01-03}
tasks: {ctr: {label: clicked}, cvr: {label: bought, given: ctr}}
model: {name: ple, experts: 8, branches: [fm]}
weighting: {method: uncertainty}
fit: {seed: 5, epochs: 40}
"""


def config_with(settings: dict[str, object]) -> ProjectConfig:
    return parse_config(PROJECT, "project", settings)


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_a_model_that_can_be_trained(name: str) -> None:
    config = config_with(preset(name))
    check_model(config.model, config.tasks)
    for key, value in preset(name).items():
        section, _, rest = key.partition(".")
        found = config.model_dump(mode="json")[section]
        for part in rest.split("."):
            found = found[part]
        assert found == value


def test_a_preset_goes_before_the_file_and_behind_settings() -> None:
    config = config_with({**preset("best"), "model.dim": 8})
    assert (config.model.name, config.model.branches) == ("shared_bottom", ("cross_v2",))
    assert (config.weighting.method, config.model.norm) == ("uncertainty", "layer")
    assert config.model.dim == 8
    # What a preset does not say stays as the project has it.
    assert (config.fit.seed, config.model.experts) == (5, 8)


def test_a_preset_that_is_none_is_refused(tmp_path: object) -> None:
    with pytest.raises(ConfigError, match="did you mean 'best'"):
        preset("bets")
    refused = mtlrank("train", "--preset", "bset")
    assert (refused.code, refused.out) == (2, "")
    assert "did you mean 'best'?" in refused.err
