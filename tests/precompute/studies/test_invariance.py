"""`study invariance`: the tables of a study of invariant sets, on a tiny prior and a tiny ResNet."""

import json

import pandas as pd
import pytest
from transformers import ConvNextImageProcessor, ResNetConfig, ResNetForImageClassification
from typer.testing import CliRunner

from engine.errors import BlindspotError
from engine.files import DATA
from engine.invariance import search
from precompute.cli import app
from precompute.studies.invariance import load_settings


@pytest.fixture
def resnet(tmp_path):
    """A ResNet of bottlenecks, as ResNet-50 is, with one block a stage."""
    config = ResNetConfig(embedding_size=8, hidden_sizes=[16, 32], depths=[1, 1], layer_type="bottleneck", num_labels=3)
    ResNetForImageClassification(config).save_pretrained(tmp_path / "resnet")
    ConvNextImageProcessor(size={"shortest_edge": 32}, crop_pct=1.0).save_pretrained(tmp_path / "resnet")
    return tmp_path / "resnet"


def test_sets_of_a_concept_and_of_a_resnet_s_neuron_are_drawn_and_measured(drawable, resnet, tmp_path, monkeypatch):
    monkeypatch.setattr(search, "START_STEPS", 4)
    monkeypatch.setattr(search, "START_CANDIDATES", 2)
    monkeypatch.setattr(search, "TRIES", 1)
    neuron = f"neuron:{resnet}:resnet.encoder.stages.1.layers.0:5"
    words = [
        "study",
        "invariance",
        str(drawable),
        "--targets",
        "concept:4",
        neuron,
        "--methods",
        "projection",
        "descent",
    ]
    words += ["--members", "2", "--descent-steps", "32", "--optimisers", "sgd", "adam", "--rates", "0.5"]
    words += [
        "--filters",
        "none",
        "multi",
        "--grid-members",
        "1",
        "--steps",
        "4",
        "--out",
        str(tmp_path / "out"),
        "--json",
    ]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    record = json.loads((tmp_path / "out" / "study.json").read_text())
    table, grid = pd.DataFrame(record["table"]), pd.DataFrame(record["grid"])
    assert list(table["target"]) == ["concept:4", "concept:4", neuron, neuron, "all", "all"]
    assert table["l2"].notna().all() and (table["evaluations"] > 0).all() and table["frechet"].notna().all()
    own = table[table["target"] != "all"]
    assert own["within"].between(0, 1).all() and (own["l2_sd"] >= 0).all()
    assert table[table["target"] == "all"].iloc[1]["l2"] == pytest.approx(own[own["method"] == "descent"]["l2"].mean())
    assert len(grid) == 4 and (grid["least"] <= grid["mean"]).all() and set(grid["filter"]) == {"none", "multi"}
    assert {"table.csv", "grid.csv", "figure.html", "grid.png"} <= {file.name for file in (tmp_path / "out").iterdir()}


def test_the_recipe_of_the_thesis_reads_and_odd_ones_are_one_sentence(tmp_path):
    settings = load_settings(DATA / "recipes" / "invariance.yaml", {"members": 4})
    assert len(settings.targets) == 8 and settings.members == 4 and settings.optimisers[-1] == "shampoo"
    for given, said in (
        ({}, "name one or more targets"), ({"targets": ["concept:4"], "images": [1, 2]}, "one for each"),
        ({"targets": ["concept:4"], "methods": ["magic"]}, "no method 'magic'"), ({"members": 1}, "members"),
        ({"targets": ["concept:4"], "filters": ["box:1"]}, "filter 'box'"), ({"colour": 1}, "colour"),
    ):  # fmt: skip
        with pytest.raises(BlindspotError, match=said):
            load_settings(None, given)
