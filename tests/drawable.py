"""An atlas to draw from: synthetic tables with an encoder, a dictionary and a prior that are real, tiny and random."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.synthetic import build_synthetic_atlas


def build_drawable_atlas(root: Path, concepts: int, **settings: Any) -> Path:
    """Write it to `root/atlas`, its models beside it; `settings` as for `build_synthetic_atlas`."""
    import torch
    from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

    from engine.dictionary.topk import TopK
    from tests.engine.priors.tiny import ONE_LEVEL, tiny_pipeline

    path = build_synthetic_atlas(root / "atlas", concepts=concepts, **settings)
    torch.manual_seed(0)
    config = Dinov2WithRegistersConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=8, num_register_tokens=2
    )
    Dinov2WithRegistersModel(config).save_pretrained(root / "encoder")
    TopK(16, concepts, 4).save_pretrained(path / "dictionary")
    tiny_pipeline(root / "prior", **ONE_LEVEL)
    header = json.loads((path / "atlas.json").read_text())
    header["encoder"] |= {"id": "../encoder", "revision": None, "layer": None, "image_size": 32, "resize": "square"}
    header["prior"] = {"id": "../prior", "kind": "latent", "prompt": ""}
    (path / "atlas.json").write_text(json.dumps(header))
    return path
