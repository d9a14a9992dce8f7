"""Sparse autoencoder whose codes are the pre-activations above a threshold of each concept: what JumpReLU, ReLU,
gated and BatchTopK autoencoders are once they are trained.

    a = V u + b                                  pre-activations [K], in the dictionary's units u (see `base`)
    a <- gain * (a - mean_k a) / std_k a + shift    only with `layer_norm`, over the concepts of one token
    z_k = a_k where a_k > theta_k, else 0        theta_k >= 0; the strongest `sparsity` of them are kept

It holds weights that others trained (`engine.dictionary.published`): ReLU is theta = 0 (Bricken et al. 2023), JumpReLU
a theta per concept (Rajamanoharan et al. 2024, arXiv 2407.14435), BatchTopK one theta for all (Bussmann et al. 2024,
arXiv 2412.06410).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.dictionary.base import Codes, Dictionary
from engine.errors import BlindspotError

CHUNK_ENTRIES = 2**24
"""Pre-activations held at a time."""


class Thresholded(Dictionary):
    """Free atoms, and codes above a threshold.

    Parameters
    ----------
    dim, concepts
        See `Dictionary`.
    sparsity
        Width of the codes: of the concepts above their thresholds, the strongest so many are kept per token.
    layer_norm
        Whether pre-activations are layer-normalised over all concepts, as the encoder of RA-SAE-DINOv2-32k does.
    """

    kind = "threshold"

    def __init__(self, dim: int, concepts: int, sparsity: int, layer_norm: bool = False) -> None:
        super().__init__(dim, concepts, sparsity)
        self.decoder = nn.Parameter(F.normalize(torch.randn(concepts, dim), dim=-1))
        self.register_buffer("thresholds", torch.zeros(concepts))
        self.layer_norm = nn.LayerNorm(concepts) if layer_norm else None
        self._moments: tuple[tuple, Tensor, Tensor] | None = None

    def settings(self) -> dict[str, Any]:
        """The constructor's arguments, JSON-ready."""
        return {**super().settings(), "layer_norm": self.layer_norm is not None}

    def _atoms(self) -> Tensor:
        return self.decoder

    @torch.no_grad()
    def constrain(self) -> None:
        """Thresholds of at least 0; below, they would let nothing more through."""
        self.thresholds.clamp_(min=0)

    def initialise(self, tokens: Tensor, generator: torch.Generator) -> None:
        """Refused: this kind holds trained weights."""
        raise BlindspotError(
            "A dictionary of kind 'threshold' holds weights that were trained elsewhere and cannot be trained anew; "
            "choose another kind, for example topk."
        )

    def activate(self, features: Tensor) -> Codes:
        """Sparse codes of what `features` gave, chunk by chunk."""
        parts = [self._above(part) for part in features.split(max(1, CHUNK_ENTRIES // self.concepts))]
        return Codes(torch.cat([part.indices for part in parts]), torch.cat([part.values for part in parts]))

    def _above(self, features: Tensor) -> Codes:
        activations = self.encoder(features)
        if self.layer_norm is not None:
            activations = self.layer_norm(activations)
        values, indices = activations.masked_fill(activations <= self.thresholds, 0).topk(self.sparsity, dim=-1)
        return Codes(indices, values.relu())

    def preactivate(self, x: Tensor, concepts: Tensor) -> Tensor:
        """Pre-activations of some concepts only, before the threshold; differentiable.

        With layer normalisation the mean and variance over all K concepts are needed. Both follow from moments of the
        encoder's rows, computed once: the mean is linear in the token and the variance a quadratic form of it.

        Parameters
        ----------
        x
            Raw tokens [N, d].
        concepts
            int64 [c].

        Returns
        -------
        Tensor
            [N, c]; computing them costs N * d * c (and N * d * d with layer normalisation), not N * d * K.
        """
        chosen = super().preactivate(x, concepts)
        if self.layer_norm is None:
            return chosen
        mean_row, covariance = self._encoder_moments()
        u = self.standardise(x)
        tokens = torch.cat([u, torch.ones_like(u[:, :1])], dim=-1)
        variance = ((tokens @ covariance) * tokens).sum(dim=-1, keepdim=True).clamp_min(0)
        unit = (chosen - tokens @ mean_row[:, None]) * (variance + self.layer_norm.eps).rsqrt()
        return unit * self.layer_norm.weight[concepts] + self.layer_norm.bias[concepts]

    def _encoder_moments(self) -> tuple[Tensor, Tensor]:
        """Mean [d + 1] and covariance [d + 1, d + 1] over the concepts of the encoder's rows (V_k, b_k)."""
        sources = (self.encoder.weight, self.encoder.bias)
        if torch.is_grad_enabled() and any(source.requires_grad for source in sources):
            return self._compute_moments()
        key = tuple((source.data_ptr(), source._version, source.dtype) for source in sources)
        if self._moments is None or self._moments[0] != key:
            with torch.inference_mode(False), torch.no_grad():
                self._moments = (key, *self._compute_moments())
        return self._moments[1:]

    def _compute_moments(self) -> tuple[Tensor, Tensor]:
        rows = torch.cat([self.encoder.weight, self.encoder.bias[:, None]], dim=-1)
        mean = rows.mean(dim=0)
        centred = rows - mean
        return mean, centred.T @ centred / self.concepts
