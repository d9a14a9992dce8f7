"""Sparse autoencoders with free atoms, by how they choose the active concepts: TopK, BatchTopK, or a threshold.

`TopK` keeps the k strongest activations of every token (Gao et al. 2025, "Scaling and evaluating sparse autoencoders").

`BatchTopK` (Bussmann et al. 2024, arXiv:2412.06410) trains on the B k strongest activations of a batch of B tokens, so
that a rich token may use more concepts than a plain one. A token must not depend on its batch later, so the smallest
activation that was kept is remembered as a running mean, and codes are those above it:

    z_nk = a_nk  if a_nk >= theta  else 0        theta = mean over batches of min { z_nk > 0 }

On DINOv2 tokens, which differ little in size, TopK explains more at small k. About half of the gap is that a linear
encoder cannot know how many concepts of a token will be kept: at k = 5, reconstructions from 1 or 2 are 1.6 times too
short and those from more than 10 1.5 times too long. The rest is which token is given more.

`Thresholded` holds what JumpReLU, ReLU, gated and BatchTopK autoencoders of others are once they are trained:

    a <- gain * (a - mean_k a) / std_k a + shift    only with `layer_norm`, over the concepts of one token
    z_k = a_k where a_k > theta_k, else 0           theta_k >= 0; the strongest `sparsity` of them are kept

ReLU is theta = 0 (Bricken et al. 2023), JumpReLU a theta per concept (Rajamanoharan et al. 2024, arXiv:2407.14435).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from engine.dictionary.base import Dictionary
from engine.dictionary.encoding import Codes, top_codes
from engine.errors import BlindspotError

NEGLIGIBLE_NORM = 1e-3
JITTER = 0.01
MOMENTUM = 0.95
"""Of BatchTopK's threshold."""
MAX_ACTIVE_FACTOR = 8
CHUNK_ENTRIES = 2**24
"""Pre-activations that a `Thresholded` holds at a time."""


class TopK(Dictionary):
    """Atoms are free directions of unit norm."""

    kind = "topk"

    def __init__(self, dim: int, concepts: int, sparsity: int) -> None:
        super().__init__(dim, concepts, sparsity)
        self.decoder = nn.Parameter(F.normalize(torch.randn(concepts, dim), dim=-1))
        self.reset(self.decoder.detach())

    def _atoms(self) -> Tensor:
        return self.decoder

    @torch.no_grad()
    def constrain(self) -> None:
        """Unit norm for every atom."""
        self.decoder.copy_(F.normalize(self.decoder, dim=-1))

    @torch.no_grad()
    def initialise(self, tokens: Float[Tensor, "n d"], generator: torch.Generator) -> None:
        """The directions of random tokens; unlike random directions they lie where there is data."""
        self.reset(random_directions(tokens, self.concepts, generator)[1])

    @torch.no_grad()
    def reset(self, atoms: Float[Tensor, "K d"]) -> None:
        """Set the unit-norm atoms and point the encoder along them.

        It is divided by the sparsity k because the k atoms nearest to a token point the same way and add up.
        """
        self.decoder.copy_(atoms)
        self.encoder.weight.copy_(atoms / self.sparsity)
        self.encoder.bias.zero_()


def random_directions(
    tokens: Float[Tensor, "n d"], count: int, generator: torch.Generator
) -> tuple[Int[Tensor, " count"], Float[Tensor, "count d"]]:
    """Rows of tokens drawn at random, and their directions, all a little different."""
    found = (tokens.norm(dim=-1) > NEGLIGIBLE_NORM).nonzero().squeeze(-1)
    order = torch.randperm(len(found), generator=generator)
    rows = found[order[torch.arange(count) % len(found)].to(found.device)]
    jitter = JITTER * torch.randn(count, tokens.shape[1], generator=generator) / tokens.shape[1] ** 0.5
    return rows, F.normalize(F.normalize(tokens[rows], dim=-1) + jitter.to(tokens.device), dim=-1)


class BatchTopK(TopK):
    """Free unit-norm atoms, `sparsity` active concepts per token on average and at most `max_active` of one.

    That is the width of its codes, by default 8 times the sparsity. Training keeps to it, too, so nothing is cut off
    later that the atoms relied on.
    """

    kind = "batchtopk"
    threshold: Tensor

    def __init__(self, dim: int, concepts: int, sparsity: int, max_active: int | None = None) -> None:
        super().__init__(dim, concepts, sparsity)
        self.max_active = min(concepts, MAX_ACTIVE_FACTOR * sparsity) if max_active is None else max_active
        if not sparsity <= self.max_active <= concepts:
            raise BlindspotError(
                f"A token cannot have up to {self.max_active} active concepts of {concepts} when {sparsity} is the "
                "mean; choose max_active between the two."
            )
        self.register_buffer("threshold", torch.zeros(()))

    def settings(self) -> dict[str, Any]:
        """The constructor's arguments, JSON-ready."""
        return {**super().settings(), "max_active": self.max_active}

    def activate(self, features: Float[Tensor, "n f"]) -> Codes:
        """The activations that reach the learnt threshold, at most `max_active` of a token, the others 0."""
        return _at_least(self._strongest(features), self.threshold)

    def activate_batch(self, features: Float[Tensor, "n f"], half: bool = False) -> Codes:
        """The strongest `sparsity` activations per token over the whole batch."""
        codes = self._strongest(features, half)
        kept = codes.values.detach().flatten().topk(self.sparsity * len(features), sorted=False).values
        return _at_least(codes, kept.min())

    def _strongest(self, features: Tensor, half: bool = False) -> Codes:
        return top_codes(features, self.encoder.weight, self.encoder.bias, self.max_active, half)

    def selection_level(self, codes: Codes) -> Float[Tensor, ""]:
        """The smallest activation that was kept."""
        values = codes.values.detach()
        return values.where(values > 0, torch.inf).amin().nan_to_num(posinf=0.0)

    @torch.no_grad()
    def update_threshold(self, level: Float[Tensor, ""]) -> None:
        """Move the threshold towards the smallest activation that was kept, if any; the first batch sets it."""
        pace = torch.where(self.threshold == 0, 1.0, 1 - MOMENTUM)
        self.threshold.lerp_(torch.where(level > 0, level, self.threshold), pace)


def _at_least(codes: Codes, level: Tensor) -> Codes:
    return codes._replace(values=codes.values * (codes.values >= level))


class Thresholded(Dictionary):
    """Free atoms, and codes above a threshold; it holds weights that others trained (`engine.dictionary.published`).

    `sparsity` is the width of the codes. With `layer_norm` pre-activations are layer-normalised over all concepts, as
    the encoder of RA-SAE-DINOv2-32k does.
    """

    kind = "threshold"
    thresholds: Tensor

    def __init__(self, dim: int, concepts: int, sparsity: int, layer_norm: bool = False) -> None:
        super().__init__(dim, concepts, sparsity)
        self.decoder = nn.Parameter(F.normalize(torch.randn(concepts, dim), dim=-1))
        self.register_buffer("thresholds", torch.zeros(concepts))
        self.layer_norm = nn.LayerNorm(concepts) if layer_norm else None

    def settings(self) -> dict[str, Any]:
        """The constructor's arguments, JSON-ready."""
        return {**super().settings(), "layer_norm": self.layer_norm is not None}

    def _atoms(self) -> Tensor:
        return self.decoder

    @torch.no_grad()
    def constrain(self) -> None:
        """Thresholds of at least 0; below, they would let nothing more through."""
        self.thresholds.clamp_(min=0)

    def initialise(self, tokens: Float[Tensor, "n d"], generator: torch.Generator) -> None:
        """Refused: this kind holds trained weights."""
        raise BlindspotError(
            "A dictionary of kind 'threshold' holds weights that were trained elsewhere and cannot be trained anew; "
            "choose another kind, for example topk."
        )

    def activate(self, features: Float[Tensor, "n f"]) -> Codes:
        """Sparse codes of what `features` gave, chunk by chunk."""
        parts = [self._above(part) for part in features.split(max(1, CHUNK_ENTRIES // self.concepts))]
        return Codes(torch.cat([part.indices for part in parts]), torch.cat([part.values for part in parts]))

    def _above(self, features: Tensor) -> Codes:
        activations = self.encoder(features)
        if self.layer_norm is not None:
            activations = self.layer_norm(activations)
        values, indices = activations.masked_fill(activations <= self.thresholds, 0).topk(self.sparsity, dim=-1)
        return Codes(indices, values.relu())

    def preactivate(self, x: Float[Tensor, "n d"], concepts: Int[Tensor, " c"]) -> Float[Tensor, "n c"]:
        """Pre-activations of some concepts only, before the threshold; differentiable.

        Layer normalisation needs the mean and variance over all K concepts. Both follow from moments of the encoder's
        rows, computed once: the mean is linear in the token and the variance a quadratic form of it. So the cost is
        n * d * c, with layer normalisation n * d * d more, not n * d * K.
        """
        chosen = super().preactivate(x, concepts)
        if self.layer_norm is None:
            return chosen
        sources = [self.encoder.weight, self.encoder.bias]
        mean_row, covariance = self._cached("encoder moments", self._encoder_moments, sources)
        u = self.standardise(x)
        tokens = torch.cat([u, torch.ones_like(u[:, :1])], dim=-1)
        variance = ((tokens @ covariance) * tokens).sum(dim=-1, keepdim=True).clamp_min(0)
        unit = (chosen - tokens @ mean_row[:, None]) * (variance + self.layer_norm.eps).rsqrt()
        return unit * self.layer_norm.weight[concepts] + self.layer_norm.bias[concepts]

    def _encoder_moments(self) -> tuple[Tensor, Tensor]:
        """Mean [d + 1] and covariance [d + 1, d + 1] over the concepts of the encoder's rows (V_k, b_k)."""
        rows = torch.cat([self.encoder.weight, self.encoder.bias[:, None]], dim=-1)
        mean = rows.mean(dim=0)
        centred = rows - mean
        return mean, centred.T @ centred / self.concepts
