"""From an encoder, a rule and a decoder, as published, to a dictionary of ours with the same codes.

Published:  a = V (x - centre) + b,   z = rule(a),   x_hat = offset + z D
Ours:       u = x - mean,             a = V u + b',  x_hat = mean + z D        with scale 1 (see `base`)

They agree with mean = offset and b' = b + V (offset - centre).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from engine.dictionary.base import Dictionary
from engine.dictionary.topk import Thresholded, TopK
from engine.errors import BlindspotError

MAX_ACTIVE = 256
"""Codes kept per token where a file sets no limit."""
UNIT_TOLERANCE = 1e-3


class Options(NamedTuple):
    """What the user knows and the file may not say."""

    sparsity: int | None = None
    """Active concepts per token of a TopK; the most that are kept of any other."""
    threshold: float | None = None
    """Threshold of a BatchTopK."""


@dataclass(frozen=True)
class Imported:
    """A published dictionary in our form."""

    dictionary: Dictionary
    assumed: dict[str, str]
    """By topic (normalisation, centring, threshold ...) one sentence on how the file was understood."""


@dataclass(frozen=True)
class LinearAutoencoder:
    """A published autoencoder with a linear encoder."""

    encoder: Float[Tensor, "K d"]
    bias: Float[Tensor, " K"]
    atoms: Float[Tensor, "K d"]
    offset: Float[Tensor, " d"]
    """Decoder bias."""
    centre: Float[Tensor, " d"] | None = None
    """What is subtracted before the encoder, if anything."""
    layer_norm: tuple[Float[Tensor, " K"], Float[Tensor, " K"]] | None = None
    """Gain and shift of a LayerNorm over the pre-activations."""

    def topk(self, options: Options, found: object, where: str, assumed: dict[str, str]) -> Imported:
        """The dictionary that keeps the k strongest positive pre-activations, with the user's k or else the file's.

        Raises
        ------
        BlindspotError
            When k is unknown or impossible.
        """
        sparsity = active(options, found, len(self.bias), where)
        assumed = {"sparsity": f"TopK of relu, k = {sparsity}", "threshold": "none"} | assumed
        if self.layer_norm is None:
            return Imported(self._fill(TopK(self.encoder.shape[1], len(self.bias), sparsity)), assumed)
        return Imported(self._above(torch.zeros(len(self.bias)), sparsity), assumed)

    def above(self, thresholds: Float[Tensor, " K"], options: Options, where: str, assumed: dict[str, str]) -> Imported:
        """The dictionary that keeps pre-activations above thresholds, the strongest ones where there are too many."""
        concepts = len(self.bias)
        kept = active(options, min(MAX_ACTIVE, concepts), concepts, where)
        limit = f"no limit in the file; the {kept} strongest concepts of a token are kept (--sparsity changes it)"
        limit = "every active concept of a token is kept" if kept == concepts else limit
        return Imported(self._above(thresholds, kept), {"sparsity": limit} | assumed)

    @torch.no_grad()
    def _above(self, thresholds: Tensor, sparsity: int) -> Dictionary:
        made = Thresholded(self.encoder.shape[1], len(self.bias), sparsity, layer_norm=self.layer_norm is not None)
        made.thresholds.copy_(thresholds.clamp_min(0))
        if self.layer_norm is not None and made.layer_norm is not None:
            made.layer_norm.weight.copy_(self.layer_norm[0])
            made.layer_norm.bias.copy_(self.layer_norm[1])
        return self._fill(made)

    @torch.no_grad()
    def _fill(self, made: TopK | Thresholded) -> Dictionary:
        gap = self.offset.double() if self.centre is None else self.offset.double() - self.centre.double()
        bias = (self.bias.double() + self.encoder.double() @ gap).float() if gap.any() else self.bias
        made.encoder.weight.copy_(self.encoder)
        made.encoder.bias.copy_(bias)
        made.decoder.copy_(self.atoms)
        made.mean.copy_(self.offset)
        return made.eval().requires_grad_(False)

    def assumptions(self, normalisation: str, decoder_bias: str) -> dict[str, str]:
        """What is said of every file: how inputs are scaled and centred, and of the atoms."""
        subtracted = "nothing" if self.centre is None else "the decoder bias"
        return {
            "normalisation": normalisation,
            "centring": f"{subtracted} is subtracted before the encoder",
            "decoder bias": decoder_bias,
            "atom norm": norm_note(self.atoms),
        }


def gated_as_jump(
    encoder: Float[Tensor, "K d"],
    log_gain: Float[Tensor, " K"],
    gate_bias: Float[Tensor, " K"],
    bias: Float[Tensor, " K"],
) -> tuple[Float[Tensor, "K d"], Float[Tensor, " K"], Float[Tensor, " K"]]:
    """Encoder, bias and thresholds of the JumpReLU with the same codes as a gated autoencoder with tied weights
    (Rajamanoharan et al. 2024, arXiv:2404.16014, appendix H).

    With w = V x, a concept is active where w + b_gate > 0 and has the code relu(exp(r) w + b_mag). In
    a = exp(r) w + b_mag the gate opens at a > b_mag - exp(r) b_gate.
    """
    gain = log_gain.exp()
    return encoder * gain[:, None], bias, bias - gain * gate_bias


def active(options: Options, found: object, concepts: int, where: str) -> int:
    """The k of a TopK, the user's or else the file's; refused if it is unknown or impossible."""
    sparsity = found if options.sparsity is None else options.sparsity
    if sparsity is None:
        raise BlindspotError(
            f"{where} does not say how many concepts are active; give --sparsity K if it is a TopK, "
            "or --threshold T (its running_threshold) if it is a BatchTopK."
        )
    if isinstance(sparsity, bool) or not isinstance(sparsity, int) or not 1 <= sparsity <= concepts:
        raise BlindspotError(
            f"{where}: {sparsity} active of {concepts} concepts is impossible; give --sparsity K, from 1 to {concepts}."
        )
    return sparsity


def norm_note(atoms: Float[Tensor, "K d"]) -> str:
    """Whether atoms have unit norm, for the list of assumptions."""
    norms = atoms.norm(dim=-1)
    low, high = norms.min().item(), norms.max().item()
    if max(abs(low - 1), abs(high - 1)) < UNIT_TOLERANCE:
        return "atoms have unit norm"
    return f"atoms are kept as they are, of norm {low:.3g} to {high:.3g}"


def threshold_range(thresholds: Float[Tensor, " K"]) -> str:
    """The least threshold, and the largest if there is another."""
    low, high = thresholds.min().item(), thresholds.max().item()
    return f"{low:.4g}" + (f" to {high:.4g}, per concept" if high > low else "")
