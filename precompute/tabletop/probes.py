"""Linear probes: how much of the ground truth a linear classifier reads from an encoder's features."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from precompute.tabletop.scenes import Scene

__all__ = ["ATTRIBUTES", "LinearProbes", "features", "truth"]

ATTRIBUTES = ("kind", "colour", "background")
LAYERS = 4
"""How many of the last blocks the probe reads, as in DINOv2's linear evaluation."""


@torch.no_grad()
def features(encoder: torch.nn.Module, images: Tensor, batch: int = 256) -> np.ndarray:
    """Class token and mean patch of the last four blocks, float32 `[n, 8 d]`.

    `encoder` is a transformers `Dinov2WithRegistersModel`; `images` are float `[n, 3, h, w]` in 0..1 at its own size.
    """
    from precompute.tabletop.selfsupervised import normalise

    rows = []
    for part in images.split(batch):
        states = encoder(normalise(part), output_hidden_states=True).hidden_states[-LAYERS:]
        patches = 1 + encoder.config.num_register_tokens
        rows.append(
            torch.cat([x for s in map(encoder.layernorm, states) for x in (s[:, 0], s[:, patches:].mean(1))], dim=1)
        )
    return torch.cat(rows).float().numpy()


def truth(scenes: Sequence[Scene], attribute: str) -> np.ndarray:
    """The attribute of scenes that hold one thing, str `[n]`."""
    if attribute == "background":
        return np.array([scene.background for scene in scenes])
    return np.array([getattr(scene.things[0], attribute) for scene in scenes])


class LinearProbes:
    """One multinomial logistic regression per attribute, fitted on real scenes that hold one thing."""

    def __init__(self, rows: np.ndarray, scenes: Sequence[Scene], regularisation: float = 0.05):
        self.models = {
            name: make_pipeline(StandardScaler(), LogisticRegression(C=regularisation, max_iter=300)).fit(
                rows, truth(scenes, name)
            )
            for name in ATTRIBUTES
        }

    def accuracy(self, rows: np.ndarray, scenes: Sequence[Scene]) -> dict[str, float]:
        """Share of right answers per attribute, against the ground truth (or, for generated pictures, the prompt)."""
        return {name: float(model.score(rows, truth(scenes, name))) for name, model in self.models.items()}
