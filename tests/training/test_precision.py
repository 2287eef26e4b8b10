"""The arithmetic of a machine: measured once, accurate, and the same for every training after."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import pytest
import torch

from mtl_rank.training import precision
from mtl_rank.training.precision import Precision, choose_precision, decide, load_precision, matmul_precision

ACCURATE = {"fp32": 3e-7, "fp32 medium": 4e-7, "bf16": 3e-3}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "mtlrank"


def test_a_named_precision_is_taken_as_it_is(cache):
    assert choose_precision("fp32", "cpu") == Precision("fp32")
    assert choose_precision("bf16", "cpu") == Precision("bf16")
    assert not cache.exists()


@pytest.mark.parametrize(
    ("medium", "bf16", "errors", "chosen"),
    [
        (1.5, 2.4, ACCURATE, ("bf16", "medium")),
        (1.5, 1.6, ACCURATE, ("fp32", "medium")),
        (1.0, 1.6, ACCURATE, ("bf16", "highest")),
        (1.1, 1.1, ACCURATE, ("fp32", "highest")),
        (1.5, 1.0, {**ACCURATE, "fp32 medium": 3e-3}, ("fp32", "highest")),
        (1.0, 3.0, {**ACCURATE, "bf16": 0.1}, ("fp32", "highest")),
        (1.5, None, ACCURATE, ("fp32", "medium")),
    ],
)
def test_the_fastest_way_that_is_accurate_and_worth_it(medium, bf16, errors, chosen):
    speedups = {"fp32": 1.0, "fp32 medium": medium, **({"bf16": bf16} if bf16 else {})}
    found = decide(speedups, errors)
    assert (found.name, found.matmul) == chosen


def test_the_choice_is_remembered_and_survives_writing_down(cache):
    first = choose_precision("auto", "cpu")
    (file,) = cache.glob("*.json")
    changed = {**json.loads(file.read_text()), "name": "bf16", "matmul": "medium"}
    file.write_text(json.dumps(changed))
    assert choose_precision("auto", "cpu") == load_precision(changed)
    assert load_precision(asdict(first)) == first
    assert first.errors is not None
    assert first.errors["fp32"] < 1e-6


@pytest.mark.parametrize("damage", ["", "{", '{"name": "fp16"}', "null"])
def test_a_damaged_memory_is_measured_anew(cache, damage):
    first = choose_precision("auto", "cpu")
    (file,) = cache.glob("*.json")
    file.write_text(damage)
    again = choose_precision("auto", "cpu")
    assert again.errors == first.errors
    assert load_precision(json.loads(file.read_text())) == again


def test_processes_that_measure_at_once_agree(cache, monkeypatch):
    measured = iter(range(100))
    monkeypatch.setattr(precision, "_probe", lambda: Precision("fp32", speedups={"fp32": next(measured)}))
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: choose_precision("auto", "cpu"), range(40)))
    assert len({one.speedups["fp32"] for one in found}) == 1


def test_without_a_place_to_remember_it_is_measured(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert choose_precision("auto", "cpu").name in ("fp32", "bf16")


def test_the_setting_of_the_process_comes_back():
    with matmul_precision(Precision("fp32", "medium")):
        assert torch.get_float32_matmul_precision() == "medium"
    assert torch.get_float32_matmul_precision() == "highest"
