"""Exported files: what other programs get from them is what the run predicts."""

import dataclasses
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from harness import mtlrank

import mtl_rank as mr
from mtl_rank.calibration import Beta, Calibration, Isotonic, Map, Platt, Temperature
from mtl_rank.config import Model
from mtl_rank.data.encoded import take
from mtl_rank.data.encoder import EncodedRows, FeatureEncoder
from mtl_rank.errors import ConfigError, RunError
from mtl_rank.exporting.export import export
from mtl_rank.exporting.formats import FORMATS
from mtl_rank.exporting.ranker import calibration_of
from mtl_rank.nn.trunks import TRUNKS, SharedBottom
from mtl_rank.nn.zoo import ZOO, build_network, parts_of
from mtl_rank.predict import Predictor
from mtl_rank.progress import Silent
from mtl_rank.runs import find_run
from mtl_rank.training.precision import Precision

MAPS: dict[str, Map] = {
    "platt": Platt(0.7, -0.3),
    "temperature": Temperature(1.6),
    "beta": Beta(0.8, 1.3, 0.2),
    "isotonic": Isotonic((-3.0, -1.5, 0.0, 2.0), (-4.0, -1.0, -0.2, 3.0)),
}


@pytest.fixture(scope="module")
def loaded(trained: Path) -> Predictor:
    return Predictor.load(find_run(trained), Precision("fp32"))


@pytest.fixture(scope="module")
def rows(trained: Path, loaded: Predictor) -> EncodedRows:
    """A thousand rows with random histories of every length, gaps among them."""
    table = pl.read_parquet(trained / "data" / "impressions.parquet").head(1_000)
    missing = [spec.name for spec in loaded.encoder.schema.inputs if spec.name not in table.columns]
    encoded = loaded.encoder.encode(
        table.with_columns(pl.lit(None).alias(name) for name in missing), with_labels=False
    )
    draw = np.random.default_rng(0)
    sequences = []
    for column, empty in zip(loaded.encoder.layout.sequences, encoded.sequences, strict=True):
        drawn = draw.integers(column.offset, column.offset + column.size, empty.shape, dtype=np.int32)
        there = draw.random(empty.shape) < draw.random((len(empty), 1))
        sequences.append(np.where(there, drawn, column.pad_id).astype(np.int32))
    numbers = draw.normal(size=encoded.dense.shape).astype(np.float32)
    return encoded._replace(dense=numbers, sequences=tuple(sequences))


def random_model(loaded: Predictor, model: Model, maps: dict[str, Map] | None = None) -> Predictor:
    """A predictor of the run's inputs and tasks with random weights, none at zero."""
    torch.manual_seed(1)
    config = loaded.config.model_copy(update={"model": model})
    network = build_network(model, loaded.encoder.layout, torch.zeros(len(config.tasks)), config.tasks)
    with torch.no_grad():
        tables = {id(table) for table in network.tables()}
        for parameter in network.parameters():
            if id(parameter) in tables or not parameter.any():
                parameter.normal_(std=0.2)
    return dataclasses.replace(
        loaded, config=config, network=network.eval(), calibration=Calibration(maps or {})
    )


def same(run: Callable[[EncodedRows], list[np.ndarray]], predictor: Predictor, rows: EncodedRows) -> None:
    """Batches of one and of a thousand rows give the run's predictions."""
    wanted = predictor.predict_encoded(rows)
    assert {name: float(np.ptp(values)) > 1e-4 for name, values in wanted.items()} == dict.fromkeys(
        wanted, True
    )
    for part in (slice(0, 1000), slice(7, 8)):
        for found, values in zip(run(take(rows, part)), wanted.values(), strict=True):
            assert found.dtype == np.float32
            np.testing.assert_allclose(found, values[part], rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(
    "name",
    [
        *("mmoe", "deepfm", "xdeepfm", "din", "bst", "ple", "aitm"),
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("dien", "dnn", "wide_deep", "dcn", "dcn_v2", "shared_bottom", "omoe", "esmm")
        ),
    ],
)
def test_onnx_gives_the_runs_predictions(
    loaded: Predictor, rows: EncodedRows, tmp_path: Path, name: str
) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    crosses = {"crosses": [["user_id", "hour"]]} if "wide" in parts_of(Model(name=name)).branches else {}
    predictor = random_model(
        loaded, Model.model_validate({"name": name, "wide": crosses, "history": {"blocks": 2}})
    )
    found = export(predictor, rows, "onnx", tmp_path / "out", Silent())
    assert found.difference < 1e-4
    assert sorted(path.name for path in found.folder.iterdir()) == ["encoder", "export.json", "model.onnx"]
    same(FORMATS["onnx"].open(found.file, found.inputs), predictor, rows)


@pytest.mark.parametrize("name", ["mmoe", pytest.param("dien", marks=pytest.mark.slow)])
def test_a_torch_program_gives_the_runs_predictions(
    loaded: Predictor, rows: EncodedRows, tmp_path: Path, name: str
) -> None:
    predictor = random_model(loaded, Model(name=name), {"ctr": MAPS["isotonic"], "cvr": MAPS["beta"]})
    found = export(predictor, rows, "torch", tmp_path / "out", Silent())
    same(FORMATS["torch"].open(found.file, found.inputs), predictor, rows)
    # Graph and weights are JSON and raw numbers; the example inputs are the only pickle, and hold tensors alone.
    with zipfile.ZipFile(found.file) as archive:
        (weights,) = (name for name in archive.namelist() if name.endswith("model_weights_config.json"))
        payloads = json.loads(archive.read(weights))["config"].values()
        assert not any(payload["use_pickle"] for payload in payloads)
        (inputs,) = (name for name in archive.namelist() if "sample_inputs" in name)
        with archive.open(inputs) as file:
            torch.load(file, weights_only=True)


@pytest.mark.parametrize("method", MAPS)
def test_calibration_maps_are_those_of_the_run(method: str) -> None:
    logits = np.concatenate([np.linspace(-40, 40, 401), MAPS["isotonic"].knots])  # type: ignore[attr-defined]
    found = calibration_of(MAPS[method])(torch.from_numpy(logits)).numpy()
    np.testing.assert_allclose(found, MAPS[method](logits), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("method", ["beta", "isotonic"])
def test_onnx_holds_every_calibration(
    loaded: Predictor, rows: EncodedRows, tmp_path: Path, method: str
) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    predictor = random_model(loaded, Model(name="shared_bottom", sequences="none"), {"ctr": MAPS[method]})
    found = export(predictor, rows, "onnx", tmp_path / "out", Silent())
    same(FORMATS["onnx"].open(found.file, found.inputs), predictor, rows)


def test_the_command_exports_with_an_encoder_that_fits(
    trained: Path, loaded: Predictor, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done = mtlrank("--project", trained, "export", "--format", "torch", "--to", out)
    assert done.code == 0, done.err
    assert "largest difference from the run on" in done.out
    document = json.loads((out / "export.json").read_text())
    assert document["run"] == loaded.run.id
    assert document["largest_difference"] < 1e-4
    assert [output["name"] for output in document["outputs"]] == loaded.outputs
    table = pl.read_parquet(trained / "data" / "impressions.parquet").head(50)
    missing = [spec.name for spec in loaded.encoder.schema.inputs if spec.name not in table.columns]
    table = table.with_columns(pl.lit(None).alias(name) for name in missing)
    encoded = FeatureEncoder.load(out / "encoder").encode(table, with_labels=False)
    run = FORMATS["torch"].open(out / document["file"], [given["name"] for given in document["inputs"]])
    for found, wanted in zip(run(encoded), loaded.predict(table).values(), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    # An earlier export is replaced; a folder with anything else is left alone.
    again = mtlrank("--project", trained, "export", "--format", "torch", "--to", out, "--json")
    assert again.document["checked_rows"] == document["checked_rows"]
    refused = mtlrank("--project", trained, "export", "--format", "torch", "--to", trained)
    assert (refused.code, refused.out) == (2, "")
    assert "is no export" in refused.err
    with pytest.raises(ConfigError, match="did you mean 'onnx'"):
        mr.export(trained, format="onx")


def test_a_run_of_less_precision_is_checked_in_fp32_and_told_what_its_scores_differ_by(
    loaded: Predictor, rows: EncodedRows, tmp_path: Path
) -> None:
    exact = random_model(loaded, Model(name="shared_bottom"))
    rough = dataclasses.replace(exact, precision=Precision("bf16"))
    found = export(rough, rows, "torch", tmp_path / "out", Silent())
    assert found.difference < 1e-5
    wanted, scored = exact.predict_encoded(rows), rough.predict_encoded(rows)
    apart = max(np.abs(scored[name] - wanted[name]).max() for name in ("ctr", "cvr"))
    assert found.as_scored >= apart - 1e-5
    assert found.as_scored > 10 * found.difference
    same(FORMATS["torch"].open(found.file, found.inputs), exact, rows)


class _Branching(SharedBottom):
    """Decides by values, which a graph of tensor operations cannot."""

    def forward(self, e: torch.Tensor) -> torch.Tensor:
        return super().forward(e if float(e.sum()) > 0 else -e)


class _Different(SharedBottom):
    """Is another function once it is exported."""

    def forward(self, e: torch.Tensor) -> torch.Tensor:
        return super().forward(e * 2 if torch.compiler.is_exporting() else e)


@pytest.mark.parametrize(
    ("trunk", "words"),
    [(_Branching, "torch cannot export mine: "), (_Different, "differ from the run's by up to")],
)
def test_what_does_not_give_the_runs_predictions_is_not_written(
    loaded: Predictor,
    rows: EncodedRows,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    trunk: type[SharedBottom],
    words: str,
) -> None:
    shared = TRUNKS["shared_bottom"](1, 1, Model()).__class__
    assert issubclass(trunk, shared)
    monkeypatch.setitem(
        TRUNKS, "mine", lambda d, tasks, m: _with_class(TRUNKS["shared_bottom"](d, tasks, m), trunk)
    )
    monkeypatch.setitem(ZOO, "mine", dataclasses.replace(ZOO["shared_bottom"], trunk="mine"))
    predictor = random_model(loaded, Model(name="mine"))
    with pytest.raises(RunError, match=words) as refused:
        export(predictor, rows, "torch", tmp_path / "out", Silent())
    assert len(str(refused.value).splitlines()) <= 2
    assert not list(tmp_path.iterdir())


def _with_class(module: torch.nn.Module, kind: type[torch.nn.Module]) -> torch.nn.Module:
    module.__class__ = kind
    return module
