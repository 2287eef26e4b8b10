"""Looking inside runs of the small shop: experts, inputs, attention; and models as they would be on it."""

import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from harness import mtlrank

import mtl_rank as mr
from mtl_rank.config import load_config
from mtl_rank.data.datamodule import to_batch
from mtl_rank.errors import ConfigError, RunError
from mtl_rank.predict import Predictor
from mtl_rank.runs import Run, find_run


@pytest.fixture(scope="module")
def models(applied: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Run]]:
    """The shop with a run of several models, all on ctr and cvr."""
    project = shutil.copytree(applied, tmp_path_factory.mktemp("models") / "shop")
    settings = {"fit.epochs": 5, "model.dim": 8, "fit.monitor": "valid/ctr/ne"}
    runs = {
        name: mr.train(project, ["ctr", "cvr"], {**settings, "model.name": name}) for name in ("ple", "bst")
    }
    return project, runs


def test_gates_are_the_means_of_the_networks_own(models: tuple[Path, dict[str, Run]]) -> None:
    project, runs = models
    found = mr.inspect(project, runs["ple"].id, rows=10**6)
    predictor = Predictor.load(runs["ple"])
    assert [(use.task, use.level, len(use.utilisation)) for use in found.gates] == [
        ("ctr", 1, 6),
        ("cvr", 1, 6),
    ]
    for use in found.gates:
        assert sum(use.utilisation) == pytest.approx(1, rel=1e-6)
        assert 0 < use.entropy <= 1
    # Gates of all equal weights have entropy 1, whatever the number of experts.
    with torch.no_grad():
        first = predictor.network.trunk.first
        first.first.weight[-first.split[1] :] = 0
        first.first.bias[-first.split[1] :] = 0
    from mtl_rank.evaluation.inspect import gate_use

    rows = predictor.encoder.encode(examples_of(project, predictor))
    for use in gate_use(predictor, rows):
        assert use.utilisation == pytest.approx([1 / 6] * 6)
        assert use.entropy == pytest.approx(1)


def examples_of(project: Path, predictor: Predictor) -> pl.DataFrame:
    """A few rows with the columns that the encoder reads, all features missing but the keys."""
    table = pl.read_parquet(project / "data" / "impressions.parquet").head(50)
    wanted = [spec.name for spec in predictor.encoder.schema.inputs]
    return table.with_columns(pl.lit(None).alias(name) for name in wanted if name not in table.columns)


def test_importance_finds_what_the_shop_is_made_of(models: tuple[Path, dict[str, Run]]) -> None:
    """A click follows from what the user wants of the category, and the model has learned so."""
    project, runs = models
    found = mr.inspect(project, runs["ple"].id, rows=2_000)
    assert found.rows <= 2_000
    rises = {one.input: one.loss_rise for one in found.importance if one.task == "ctr"}
    schema = Predictor.load(runs["ple"]).encoder.schema
    assert list(rises) == [spec.name for spec in schema.inputs]
    ranked = sorted(rises, key=lambda name: -rises[name])
    assert ranked[0].startswith("user_category__")
    assert rises[ranked[0]] > 0.001
    again = mr.inspect(project, runs["ple"].id, rows=2_000)
    assert again == found


def test_an_input_that_the_network_does_not_read_has_no_importance(
    models: tuple[Path, dict[str, Run]],
) -> None:
    project, runs = models
    predictor = Predictor.load(runs["ple"])
    column = next(c for c in predictor.encoder.layout.ids if c.name == "hour")
    with torch.no_grad():
        list(predictor.network.embeddings.parameters())[column.table][
            column.offset : column.offset + column.size
        ] = 0
    from mtl_rank.evaluation.inspect import importance
    from mtl_rank.progress import Silent

    rows = predictor.encoder.encode(examples_of(project, predictor))
    rises = [one.loss_rise for one in importance(predictor, rows, Silent()) if one.input == "hour"]
    assert set(rises) <= {0.0, None}


def test_attention_is_told_for_the_behaviours_that_are_there(models: tuple[Path, dict[str, Run]]) -> None:
    project, runs = models
    found = mr.inspect(project, runs["bst"].id, rows=200, shown=40)
    assert len(found.attention) == 40
    assert {one.sequence for one in found.attention} == {"user_history__clicked_items"}
    seen = [one for one in found.attention if one.values]
    assert seen
    for one in found.attention:
        assert len(one.values) == len(one.weights)
        assert set(one.row) == {"user_id", "item_id", "category"} or "user_id" in one.row
        assert 0 <= sum(one.weights) < 1  # the rest is on the candidate itself
    # The same as the network's own for one of these rows.
    assert not mr.inspect(project, runs["ple"].id, rows=50).attention
    network = Predictor.load(runs["bst"]).network
    predictor = Predictor.load(runs["bst"])
    rows = predictor.encoder.encode(examples_of(project, predictor), with_labels=False)
    (weights,) = network.attention(to_batch(rows)).values()
    assert np.isfinite(weights.detach().numpy()).all()


def test_attention_stands_beside_the_behaviours_that_the_encoder_kept(
    models: tuple[Path, dict[str, Run]], tmp_path: Path
) -> None:
    """Of 60 behaviours, two of the last 50 unknown, the 48 known ones of those: the others change nothing."""
    project = shutil.copytree(models[0], tmp_path / "shop")
    path = project / "data" / "user_history.parquet"
    history = [*range(1, 61)]
    history[20] = history[58] = None
    found = {}
    for name, items in (("all", history), ("kept", history[-50:])):
        every = pl.lit(pl.Series([items], dtype=pl.List(pl.Int64))).first()
        pl.read_parquet(path).with_columns(clicked_items=every).write_parquet(path)
        found[name] = mr.inspect(project, models[1]["bst"].id, rows=100, shown=20).attention
    seen = [one for one in found["all"] if one.values]
    assert seen
    for one in seen:
        assert one.values == tuple(str(item) for item in history[-50:] if item is not None)
        assert len(one.weights) == 48
        assert min(one.weights) > 0
    assert found["all"] == found["kept"]


def test_the_command_prints_all_three(models: tuple[Path, dict[str, Run]]) -> None:
    project, runs = models
    shown = mtlrank("--project", project, "inspect", runs["bst"].id, "--rows", "300", "--shown", "2")
    assert shown.code == 0, shown.err
    assert "rise of the normalised loss" in shown.out
    assert shown.out.count("user_history__clicked_items: ") == 2
    document = mtlrank("--project", project, "inspect", runs["ple"].id, "--rows", "300", "--json").document
    assert [use["task"] for use in document["gates"]] == ["ctr", "cvr"]
    refused = mtlrank("--project", project, "inspect", "--split", "tset")
    assert (refused.code, refused.out) == (2, "")
    assert "did you mean 'test'?" in refused.err


def test_a_model_as_it_would_be_on_a_run(models: tuple[Path, dict[str, Run]]) -> None:
    project, runs = models
    info = runs["ple"].info()["fit"]
    summary = mr.describe_model(project, "ple", runs["ple"].id)
    assert summary.parameters == info["parameters"]
    assert summary.table_parameters == info["embedding_parameters"]
    # Two operations per weight that meets every row once; look-ups and the like are free.
    assert summary.flops == pytest.approx(2 * summary.parameters, rel=0.02)
    larger = mr.describe_model(project, "ple", None, {"model.experts": 16})
    assert larger.parameters > 1.5 * summary.parameters
    assert mr.describe_model(project.parent, "mmoe", str(project)) == mr.describe_model(project, "mmoe")
    with pytest.raises(ConfigError, match=r"aitm passes information"):
        mr.describe_model(
            project, "mmoe", None, {"model.heads": "aitm", "tasks": {"ctr": {"label": "clicked"}}}
        )
    with pytest.raises(RunError, match=r"there is no run 'nope'"):
        mr.describe_model(project, "mmoe", "nope")


def test_models_lists_and_describes(models: tuple[Path, dict[str, Run]], tmp_path: Path) -> None:
    project, _ = models
    listed = mtlrank("models", cwd=tmp_path)
    assert listed.code == 0
    for name in (
        "dnn",
        "deepfm",
        "dcn_v2",
        "xdeepfm",
        "din",
        "dien",
        "bst",
        "omoe",
        "mmoe",
        "ple",
        "esmm",
        "aitm",
    ):
        assert f"\n{name} " in listed.out
    assert mtlrank("models", "--json").document["ple"]["needs"] == "two tasks"
    assert "Guo et al. 2017" in mtlrank("models", "deepfm").out
    shown = mtlrank("models", "dcn_v2", "--like", project, "--set", "model.cross.rank=4")
    assert shown.code == 0, shown.err
    assert "CrossBranch" not in shown.out
    assert "branches.branches.cross_v2.network.layers.0.0" in shown.out
    assert "operations per row" in shown.out
    document = mtlrank("--project", project, "models", "mmoe", "--like", ".", "--json", cwd=project).document
    assert document["parameters"] == mr.describe_model(project, "mmoe").parameters
    for words, message in (
        (("models", "mmoee"), "did you mean 'mmoe'?"),
        (("models", "--like", "."), "name a model"),
        (("--project", project, "models", "mmoe", "--like", "nope"), "there is no run 'nope'"),
    ):
        refused = mtlrank(*words)
        assert refused.code == 2
        assert message in refused.err
        assert len(refused.err.splitlines()) <= 2


def test_a_model_on_a_project_has_its_settings_and_not_those_of_the_last_run(
    models: tuple[Path, dict[str, Run]], tmp_path: Path
) -> None:
    project = shutil.copytree(models[0], tmp_path / "shop")
    before = mr.describe_model(project, "mmoe")
    wider = {"model.dim": 2 * load_config(project).model.dim}
    assert mr.describe_model(project, "mmoe", settings=wider).table_parameters == 2 * before.table_parameters
    mr.train(project, ["ctr", "cvr"], {"model.heads": "esmm", "model.branches": ["fm"], "fit.epochs": 1})
    assert mr.describe_model(project, "mmoe") == before


def test_a_combination_that_cannot_work_is_refused_before_long_work(project: Path) -> None:
    for settings, message in (
        ({"model.name": "ple", "tasks": {"ctr": {"label": "clicked"}}}, "there is one task"),
        ({"model.name": "wide_deep", "model.wide.crosses": [["user_id", "houre"]]}, "did you mean 'hour'"),
        ({"model.pretrained": {"item_id": {"path": "none.parquet"}}}, "none.parquet cannot be read"),
        ({"model.name": "bst", "model.history.heads": 5}, "5 heads do not divide"),
    ):
        with pytest.raises(ConfigError if "parquet" not in message else Exception, match=message):
            mr.train(project, None, settings)
    assert not (project / "runs").exists()
    assert find_nothing(project)


def find_nothing(project: Path) -> bool:
    try:
        find_run(project)
    except RunError:
        return True
    return False
