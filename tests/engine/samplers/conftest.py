import json

import pytest
import torch
from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

from engine.atlas import Atlas
from engine.dictionary.checkpoints import save_dictionary
from engine.dictionary.topk import TopK
from tests.engine.priors.tiny import tiny_pipeline
from tests.synthetic import build_synthetic_atlas

CONCEPTS = 24


@pytest.fixture(scope="package")
def drawable(tmp_path_factory):
    """An atlas whose encoder, dictionary and prior are real models, tiny and random; open it anew to change it."""
    root = tmp_path_factory.mktemp("drawable")
    path = build_synthetic_atlas(root / "atlas", concepts=CONCEPTS, pairs=6, models=("alpha",))
    torch.manual_seed(0)
    config = Dinov2WithRegistersConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=8, num_register_tokens=2
    )
    Dinov2WithRegistersModel(config).save_pretrained(root / "encoder")
    save_dictionary(TopK(16, CONCEPTS, 4), path / "dictionary")
    tiny_pipeline(root / "prior")

    header = json.loads((path / "atlas.json").read_text())
    header["encoder"] |= {"id": "../encoder", "revision": None, "layer": None, "image_size": 32, "resize": "square"}
    header["prior"] = {"id": "../prior", "kind": "latent", "prompt": ""}
    (path / "atlas.json").write_text(json.dumps(header))
    return path


@pytest.fixture
def atlas(drawable):
    return Atlas.open(drawable)
