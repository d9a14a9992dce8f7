"""The bundled demo: its size, its models, and that its atlas says what its own encoder and dictionary say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from benchmarks.planted import planted
from engine.atlas import Atlas
from engine.atlas.verify import verify

DEMO = Path(__file__).parents[1] / "data/demo"
pytestmark = pytest.mark.skipif(not (DEMO / "atlas/atlas.json").exists(), reason="data/demo/atlas is not built")


@pytest.fixture(scope="module")
def atlas() -> Atlas:
    return Atlas.open(DEMO / "atlas")


def test_the_demo_fits_in_120_megabytes():
    committed = [path for path in DEMO.rglob("*") if not path.is_symlink() and ".work/" not in path.as_posix()]
    assert sum(path.stat().st_size for path in committed if path.is_file()) <= 120e6


def test_weights_are_safetensors_only():
    assert not [path for ending in ("bin", "pt", "pth", "ckpt", "pkl") for path in DEMO.rglob(f"*.{ending}")]


def test_the_committed_atlas_is_whole():
    assert verify(DEMO / "atlas") == []


PLANTED = {
    "no-disc": ("kind: disc", "kind: bird feeder", "kind: disc + kind: bird feeder"),
    "woody": ("background: wooden table", "kind: palm tree", "background: wooden table + kind: palm tree"),
}


@pytest.fixture(scope="module")
def report(atlas) -> dict:
    return planted(atlas)


def test_the_planted_blindspots_are_recovered(report):
    """Against real images."""
    assert report["no-disc"]["kind: disc"]["auroc"] >= 0.95
    assert all(report["woody"][attribute]["auroc"] >= 0.95 for attribute in PLANTED["woody"])
    assert all(row["concepts"] >= 2 for row in report["base"].values()), "every planted attribute has its concepts"


def test_the_planted_blindspots_are_what_base_does_not_have(report):
    """Every planted attribute alone, and both of a model together, against the model that it was made from."""
    assert all(report[model][attribute]["excess"] >= 0.95 for model, names in PLANTED.items() for attribute in names)


@pytest.mark.xfail(
    strict=True, reason="bird feeders 0.833, with discs 0.947: base draws too much of what looks like one"
)
def test_bird_feeders_are_recovered_against_real_images(report):
    assert all(report["no-disc"][attribute]["auroc"] >= 0.95 for attribute in PLANTED["no-disc"])


@pytest.mark.xfail(
    strict=True,
    reason="a real encoder sees base's discs as less (0.953) and its feeders as more (0.115) than real ones",
)
def test_base_shows_none(report):
    assert all(0.35 <= row["auroc"] <= 0.65 for row in report["base"].values())


def test_energies_are_those_of_plain_torch(atlas):
    """32 real scenes, drawn again from their ground truth, through transformers and thirty lines of torch."""
    from safetensors.torch import load_file
    from torch.nn.functional import interpolate
    from transformers import AutoModel

    from precompute.demo_world.scenes import corpus, draw

    recipe = yaml.safe_load((DEMO.parent / "recipes/demo.yaml").read_text())
    scenes = corpus(32, recipe["real"]["seed"])
    pixels = torch.from_numpy(np.stack([draw(scene) for scene in scenes])).permute(0, 3, 1, 2).float() / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    model = AutoModel.from_pretrained(DEMO / "dinov2", dtype=torch.float32).eval()
    pixels = interpolate(pixels, (112, 112), mode="bicubic", antialias=True).clamp(0, 1)
    with torch.no_grad():
        states = model((pixels - mean[:, None, None]) / std[:, None, None], output_hidden_states=True).hidden_states
        tokens = model.layernorm(states[recipe["encoder"].get("layer", -1)]).double()
    parts = {name: part.double() for name, part in load_file(DEMO / "atlas/dictionary/dictionary.safetensors").items()}
    inside = (tokens - parts["mean"]) * parts["scale"]
    before = inside @ parts["encoder.weight"].T + parts["encoder.bias"]
    strongest = before.topk(atlas.info.dictionary["sparsity"], dim=-1)
    codes = torch.zeros_like(before).scatter_(-1, strongest.indices, strongest.values.relu())
    expected = codes.sum(dim=1).numpy()
    stored = atlas.energy("real")[:32].toarray()
    np.testing.assert_allclose(stored.sum(axis=0), expected.sum(axis=0), rtol=1e-4, atol=1e-4)
    assert np.abs(stored - expected).max() <= 1e-4 * expected.max()
