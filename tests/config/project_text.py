"""A mtlrank.yaml with every section, with other sections in their place, and what is said when they are wrong."""

import pytest
import yaml

from mtl_rank.config import parse_config
from mtl_rank.errors import ConfigError

PROJECT = """
feature_repo: feature_repo
feature_service: ranking_v1
examples: data/impressions.parquet
truth: {path: data/truth.parquet, key: impression_id}
split: {valid: 2026-03-25, test: 2026-03-28T12:00:00+02:00}
context:
  position: {role: categorical, at_scoring: 1}
  hour: {}
tasks:
  ctr: {label: clicked}
  cvr: {label: purchased, given: ctr}
  dwell: {label: dwell_seconds, kind: regression, transform: log1p, given: ctr}
  refund: {label: refunded, given: cvr, weight: 0.5}
model: {name: mmoe, expert_layers: [256, 128], dropout: 0.1}
weighting: {method: manual, lambdas: {cvr: 2.0}}
fit: {batch_size: 4096, epochs: 3, precision: fp32}
"""


def text_of(raw):
    return yaml.safe_dump({key: value for key, value in raw.items() if value is not None}, sort_keys=False)


def config_with(**sections):
    """The project with top-level keys replaced; None removes one."""
    raw = {**yaml.safe_load(PROJECT), **sections}
    return parse_config(text_of(raw), "mtlrank.yaml")


def complaint(settings=None, **sections):
    """What the ConfigError says, after the name of the file; always one line."""
    raw = {**yaml.safe_load(PROJECT), **sections}
    with pytest.raises(ConfigError) as caught:
        parse_config(text_of(raw), "mtlrank.yaml", settings)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert "pydantic" not in message.lower()
    return message.removeprefix("mtlrank.yaml: ")
