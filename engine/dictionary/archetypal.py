"""Relaxed archetypal sparse autoencoder, RA-SAE (Fel et al. 2025, arXiv:2502.12892), and its k-means candidates.

Atoms are convex combinations of real data plus a small slack, times one positive scalar:

    D = exp(m) (W C + Lambda)    W [K, c] >= 0 with rows that sum to 1, ||Lambda_i|| <= delta

with C [c, d] the candidates: k-means centroids of the training tokens. Because of them the atoms hardly depend on the
seed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import faiss
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from engine.dictionary.base import Dictionary
from engine.errors import BlindspotError

BLEND = 0.75
BLOCK_ENTRIES, MOST_BLOCKS = 2**20, 64
CHUNK_ENTRIES = 2**20
CANDIDATE_SEED = 0
ITERATIONS, POINTS_PER_CENTROID = 20, 64
"""Of k-means."""
NEGLIGIBLE_NORM = 1e-3


class RelaxedArchetypal(Dictionary):
    """Atoms near the convex hull of the data.

    Parameters
    ----------
    candidates
        Number c of data points whose convex hull holds the atoms.
    delta
        Largest norm of an atom's slack, in the dictionary's units (tokens have a mean square of 1 per channel).
    """

    kind = "archetypal"
    points: Tensor

    def __init__(
        self, dim: int, concepts: int, sparsity: int, candidates: int | None = None, delta: float = 1.0
    ) -> None:
        super().__init__(dim, concepts, sparsity)
        self.candidates, self.delta = candidates or concepts, float(delta)
        if self.candidates < 1 or self.delta < 0:
            raise BlindspotError("An archetypal dictionary needs at least one candidate and a delta of 0 or more.")
        self.register_buffer("points", torch.randn(self.candidates, dim))
        self.weights = nn.Parameter(torch.zeros(concepts, self.candidates))
        self.slack = nn.Parameter(torch.zeros(concepts, dim))
        self.log_multiplier = nn.Parameter(torch.zeros(()))
        self.reset(self.points, torch.Generator().manual_seed(0))

    def settings(self) -> dict[str, Any]:
        """The constructor's arguments, JSON-ready."""
        return {**super().settings(), "candidates": self.candidates, "delta": self.delta}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Rates that fit the size of the parameters, because Adam moves every entry by about the learning rate.

        The weights come in blocks of rows, whose gradients `late_gradients` forms one after the other.

        A row of c weights would give away c / 2 times as much of its mass in a step, and all atoms would soon be one
        mixture: 2 / c. The encoder's entries are about 1 / d, not 1 / sqrt(d) as over unit-norm atoms, and a few steps
        would silence a rarely used concept for good: 1 / sqrt(d). On DINOv2 tokens the latter brought the dead share
        from 30 % to 5 %.
        """
        others = [self.encoder.bias, self.slack, self.log_multiplier]
        blocks = [nn.Parameter(rows) for rows in self.weights.detach().split(self._block_rows())]
        return [
            {"params": others, "rate": 1.0},
            {"params": blocks, "rate": min(1.0, 2 / self.candidates), "late": True},
            {"params": [self.encoder.weight], "rate": self.dim**-0.5},
        ]

    def backward_from_atoms(self, gradient: Float[Tensor, "K d"]) -> None:
        """Gradients of slack and multiplier; that of the weights is the slack's times C^T and is formed later.

        With G = dL/dD: dL/dLambda = exp(m) G, dL/dW = exp(m) G C^T = dL/dLambda C^T and dL/dm = <G, D>.
        """
        with torch.no_grad():
            self.log_multiplier.grad = torch.dot(gradient.flatten(), self.atoms().flatten())
            self.slack.grad = gradient.mul_(self.log_multiplier.exp())

    def late_gradients(self, half: bool = False) -> Iterator[Tensor]:
        """The gradient of the weights, by the blocks of rows that `parameter_groups` made, all in the same memory."""
        precision = torch.bfloat16 if half else self.points.dtype
        return self._blocks_of_gradient(self._slack_gradient().to(precision), self.points.to(precision).T)

    @torch.no_grad()
    def _blocks_of_gradient(self, gradient: Tensor, candidates: Tensor) -> Iterator[Tensor]:
        product = candidates.new_empty(self._block_rows(), self.candidates)
        rounded = product.dtype != self.weights.dtype
        block = torch.empty_like(product, dtype=self.weights.dtype) if rounded else product
        for rows in gradient.split(len(product)):
            torch.mm(rows, candidates, out=product[: len(rows)])
            if rounded:
                block.copy_(product)
            yield block[: len(rows)]

    def late_square(self) -> Float[Tensor, ""]:
        """||dL/dLambda C^T||^2, from the d x d products of the candidates."""
        gradient = self._slack_gradient()
        return torch.dot((gradient @ (self.points.T @ self.points)).flatten(), gradient.flatten())

    def _slack_gradient(self) -> Tensor:
        assert self.slack.grad is not None, "backward_from_atoms comes first"
        return self.slack.grad

    def _block_rows(self) -> int:
        """Rows of the weights whose gradient is formed at once."""
        blocks = min(MOST_BLOCKS, math.ceil(self.weights.numel() / BLOCK_ENTRIES))
        return math.ceil(self.concepts / blocks)

    def _atoms(self) -> Tensor:
        return torch.addmm(self.slack, self.weights, self.points) * self.log_multiplier.exp()

    @torch.no_grad()
    def constrain(self) -> None:
        """Row-stochastic weights and clipped slack; a row without any positive weight keeps its largest entry.

        It works in place on a few rows at a time, because a copy of the weights is most of a step's memory.
        """
        for rows in self.weights.split(max(1, CHUNK_ENTRIES // self.candidates)):
            largest = rows.argmax(dim=-1, keepdim=True)
            total = rows.relu_().sum(dim=-1, keepdim=True)
            rows.scatter_(-1, largest, torch.where(total > 0, rows.gather(-1, largest), 1.0))
            rows.div_(torch.where(total > 0, total, 1.0))
        norms = self.slack.norm(dim=-1, keepdim=True)
        self.slack.mul_((self.delta / norms.clamp_min(1e-12)).clamp_max(1))

    @torch.no_grad()
    def initialise(self, tokens: Float[Tensor, "n d"], generator: torch.Generator) -> None:
        """Candidates from the k-means centroids of tokens, see `reset`.

        They are brought to one norm, their root mean square, so that TopK compares like with like: an atom twice as
        short needs a code twice as large. The atoms stay in the cone of the data, as reconstructions do anyway. The
        candidates depend on the tokens alone and are the same for all seeds.
        """
        centroids = kmeans(tokens, self.candidates, CANDIDATE_SEED)
        norms = centroids.norm(dim=-1, keepdim=True)
        self.reset(centroids / norms * norms.square().mean().sqrt(), generator)

    @torch.no_grad()
    def reset(self, points: Float[Tensor, "c d"], generator: torch.Generator) -> None:
        """Put every atom on a candidate of its own, or, once they run out, between two random ones.

        The encoder starts as the atoms' least-squares coefficients d / ||d||^2, divided by the sparsity k because the k
        atoms nearest to a token point the same way and add up. No candidate may be zero.
        """
        self.points.copy_(points)
        rows = torch.arange(self.concepts)
        step = torch.randint(1, max(2, self.candidates), (self.concepts,), generator=generator)
        first, second = rows % self.candidates, (rows + step) % self.candidates
        share = torch.where(rows < self.candidates, 1.0, BLEND)
        rows, first, second, share = (each.to(self.points.device) for each in (rows, first, second, share))
        self.weights.zero_()
        self.weights[rows, first] = share
        self.weights[rows, second] += 1 - share
        self.slack.zero_()
        self.log_multiplier.zero_()
        atoms = torch.lerp(self.points[second], self.points[first], share[:, None])
        self.encoder.weight.copy_(atoms / atoms.square().sum(dim=-1, keepdim=True) / self.sparsity)
        self.encoder.bias.zero_()


def kmeans(tokens: Float[Tensor, "n d"], count: int, seed: int) -> Float[Tensor, "count d"]:
    """Centroids that can serve as candidates: exactly `count`, none of them zero, found by FAISS.

    With fewer tokens than centroids, or with a centroid on the origin (the data's mean), tokens of large norm, repeated
    if need be, fill the gap. The tokens are centred and not all zero.
    """
    points = tokens.float().cpu()
    if count >= len(points):
        centroids = points
    else:
        limits = {"min_points_per_centroid": 1, "max_points_per_centroid": POINTS_PER_CENTROID}
        clustering = faiss.Kmeans(points.shape[1], count, niter=ITERATIONS, seed=seed, **limits)
        clustering.train(np.ascontiguousarray(points.numpy()))
        centroids = torch.from_numpy(np.array(clustering.centroids))
    norms = points.norm(dim=-1)
    negligible = NEGLIGIBLE_NORM * norms.max()
    centroids = centroids[centroids.norm(dim=-1) > negligible]
    spare = points[norms.argsort(descending=True, stable=True)][: max(1, int((norms > negligible).sum()))]
    fill = torch.arange(count - len(centroids)) % len(spare)
    return torch.cat([centroids, spare[fill]])[:count].to(tokens.device)
