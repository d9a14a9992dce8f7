"""The parts of an ADM network: time embedding, residual block, self-attention (Dhariwal & Nichol 2021, section 3).

Submodules are named as in OpenAI's guided-diffusion, so that its checkpoints load strictly.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GROUPS = 32
MAX_PERIOD = 10_000

QkvOrder = Literal["legacy", "new"]
"""How the 3 C channels of queries, keys and values lie. `legacy`: head by head, each head's q, k, v in a row; `new`:
all queries, then all keys, then all values, each of them head by head."""


def time_embedding(t: Tensor, width: int) -> Tensor:
    """Sinusoids [B, width] of levels t [B]: cosines, then sines, of periods 2 pi to 2 pi 10,000."""
    half = width // 2
    frequencies = torch.exp(-math.log(MAX_PERIOD) * torch.arange(half, device=t.device, dtype=torch.float32) / half)
    angles = t.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def split_heads(qkv: Tensor, heads: int, order: QkvOrder) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values, each [B, heads, N, c], from the channels [B, 3 heads c, N]."""
    axis, shape = (2, (heads, 3, -1)) if order == "legacy" else (1, (3, heads, -1))
    q, k, v = qkv.unflatten(1, shape).transpose(-1, -2).unbind(axis)
    return q, k, v


class SelfAttention(nn.Module):
    """x + proj(attention(qkv(norm(x)))) over the positions of a map [B, C, h, w]."""

    def __init__(self, channels: int, heads: int, order: QkvOrder) -> None:
        super().__init__()
        self.heads, self.order = heads, order
        self.norm = nn.GroupNorm(GROUPS, channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] to the same."""
        q, k, v = split_heads(self.qkv(self.norm(x.flatten(2))), self.heads, self.order)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(-1, -2).flatten(1, 2)
        return x + self.proj_out(attended).view_as(x)


class ResBlock(nn.Module):
    """Two convolutions with the time embedding as scale and shift of the second norm; may halve or double the map."""

    def __init__(self, channels: int, out: int, time_width: int, resample: Literal["down", "up"] | None = None) -> None:
        super().__init__()
        self.resample = resample
        self.in_layers = nn.Sequential(
            nn.GroupNorm(GROUPS, channels), nn.SiLU(), nn.Conv2d(channels, out, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(time_width, 2 * out))
        self.out_layers = nn.Sequential(
            nn.GroupNorm(GROUPS, out), nn.SiLU(), nn.Identity(), nn.Conv2d(out, out, 3, padding=1)
        )
        self.skip_connection = nn.Identity() if channels == out else nn.Conv2d(channels, out, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Map [B, channels, h, w] and time embedding [B, time_width] to [B, out, h', w']."""
        norm, activation, convolution = self.in_layers
        inner = convolution(self._resampled(activation(norm(x))))
        scale, shift = self.emb_layers(time)[..., None, None].chunk(2, dim=1)
        out_norm, *rest = self.out_layers
        inner = out_norm(inner) * (1 + scale) + shift
        for layer in rest:
            inner = layer(inner)
        return self.skip_connection(self._resampled(x)) + inner

    def _resampled(self, x: Tensor) -> Tensor:
        if self.resample == "down":
            return F.avg_pool2d(x, 2)
        return F.interpolate(x, scale_factor=2, mode="nearest") if self.resample == "up" else x


class Stage(nn.Sequential):
    """Layers in a row, of which residual blocks also hear the time."""

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Map [B, C, h, w] and time embedding [B, time_width] to [B, C', h', w']."""
        for layer in self:
            x = layer(x, time) if isinstance(layer, ResBlock) else layer(x)
        return x
