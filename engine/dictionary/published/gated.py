"""A gated autoencoder with tied gate and magnitude weights is a JumpReLU (Rajamanoharan et al. 2024, arXiv 2404.16014,
appendix H).

With w = V x, a concept is active where w + b_gate > 0 and has the code relu(exp(r) w + b_mag). In a = exp(r) w + b_mag
the gate opens at a > b_mag - exp(r) b_gate.
"""

from __future__ import annotations

from torch import Tensor


def as_jump(encoder: Tensor, log_gain: Tensor, gate_bias: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Encoder [K, d], bias [K] and thresholds [K] of the JumpReLU with the same codes.

    Parameters
    ----------
    encoder
        V [K, d].
    log_gain
        r [K].
    gate_bias, bias
        b_gate and b_mag [K].
    """
    gain = log_gain.exp()
    return encoder * gain[:, None], bias, bias - gain * gate_bias
