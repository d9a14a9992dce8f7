"""Small real judges: image classifiers of transformers whose decisions a test can choose."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from engine.atlas.schema import TABLES


def save_judge(
    folder: Path, labels: Sequence[str], sees: Sequence[str] = (), several: bool = True, **config: Any
) -> Path:
    """A tiny ResNet that sees the labels `sees` in every image, sure of it; of one label an image unless `several`."""
    import torch
    from transformers import ResNetConfig, ResNetForImageClassification

    torch.manual_seed(0)
    settings = {"problem_type": "multi_label_classification"} if several else {}
    model = ResNetForImageClassification(
        ResNetConfig(
            embedding_size=4,
            hidden_sizes=[4, 8],
            depths=[1, 1],
            layer_type="basic",
            id2label=dict(enumerate(labels)),
            label2id={label: index for index, label in enumerate(labels)},
            **settings,
            **config,
        )
    )
    with torch.no_grad():
        head = model.classifier[-1]
        head.weight.zero_()
        head.bias.copy_(torch.tensor([5.0 if label in sees else -5.0 for label in labels]))
    model.save_pretrained(folder)
    settings = {"size": {"height": 32, "width": 32}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


def add_judge(atlas: Path, judge: str, labels: Mapping[int, str]) -> None:
    """Name a judge in the header of an atlas, and the labels that concepts stand for in its table."""
    header = json.loads((atlas / "atlas.json").read_text())
    header["judge"] = {"id": judge}
    (atlas / "atlas.json").write_text(json.dumps(header))
    rows = [
        {"concept": concept, "label": label, "precision": 0.9, "n": 6, "threshold": 0.5, "real_share": 1.0}
        for concept, label in sorted(labels.items())
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=TABLES["recognition"]), atlas / "recognition.parquet")
