"""Linear probes: how much of the ground truth a linear classifier reads from an encoder's features."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from precompute.tabletop.scenes import Scene
from precompute.tabletop.selfsupervised import normalise

__all__ = ["ATTRIBUTES", "LinearProbe", "LinearProbes", "features", "truth"]

ATTRIBUTES = ("kind", "colour", "background")
LAYERS = 4
"""How many of the last blocks the probe reads, as in DINOv2's linear evaluation."""


@torch.no_grad()
def features(encoder: torch.nn.Module, images: Tensor, batch: int = 256) -> np.ndarray:
    """Class token and mean patch of the last four blocks, float32 `[n, 8 d]`.

    `encoder` is a transformers `Dinov2WithRegistersModel`; `images` are float `[n, 3, h, w]` in 0..1 at its own size.
    """
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


class LinearProbe:
    """Multinomial logistic regression on standardised features, fitted by L-BFGS."""

    def __init__(self, rows: np.ndarray, names: np.ndarray, decay: float = 1e-4, iterations: int = 300):
        self.classes, targets = np.unique(names, return_inverse=True)
        features, wanted = torch.from_numpy(rows), torch.from_numpy(targets)
        self.centre, self.spread = features.mean(dim=0), features.std(dim=0).clamp_min(1e-6)
        inputs = self._standardise(features)
        self.weight = torch.zeros(rows.shape[1], len(self.classes), requires_grad=True)
        self.bias = torch.zeros(len(self.classes), requires_grad=True)
        solver = torch.optim.LBFGS(
            [self.weight, self.bias], max_iter=iterations, history_size=20, line_search_fn="strong_wolfe"
        )

        def loss() -> Tensor:
            solver.zero_grad()
            value = cross_entropy(inputs @ self.weight + self.bias, wanted) + decay * self.weight.square().sum()
            value.backward()
            return value

        solver.step(loss)

    def _standardise(self, features: Tensor) -> Tensor:
        return (features - self.centre) / self.spread

    @torch.no_grad()
    def predict(self, rows: np.ndarray) -> np.ndarray:
        """The likeliest class of each row, `[n]`."""
        scores = self._standardise(torch.from_numpy(rows)) @ self.weight + self.bias
        return self.classes[scores.argmax(dim=1).numpy()]


class LinearProbes:
    """One linear probe per attribute, fitted on real scenes that hold one thing."""

    def __init__(self, rows: np.ndarray, scenes: Sequence[Scene]):
        self.models = {name: LinearProbe(rows, truth(scenes, name)) for name in ATTRIBUTES}

    def accuracy(self, rows: np.ndarray, scenes: Sequence[Scene]) -> dict[str, float]:
        """Share of right answers per attribute, against the ground truth (or, for generated pictures, the prompt)."""
        return {name: float((probe.predict(rows) == truth(scenes, name)).mean()) for name, probe in self.models.items()}
