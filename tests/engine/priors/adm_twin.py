"""An ADM network rebuilt from diffusers' blocks: another hand's implementation of the same function."""

from __future__ import annotations

import torch
from diffusers import UNet2DModel

from engine.priors.adm_unet import ADMUNet

RESIDUAL = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}


def to_diffusers(unet: ADMUNet) -> UNet2DModel:
    """A `UNet2DModel` with the weights of an unconditional network of legacy attention order."""
    config = unet.config
    levels = range(len(config.multipliers))
    twin = UNet2DModel(
        sample_size=config.image_size,
        in_channels=3,
        out_channels=6,
        layers_per_block=config.blocks,
        block_out_channels=tuple(int(config.channels * multiplier) for multiplier in config.multipliers),
        attention_head_dim=config.head_channels,
        down_block_types=tuple(
            "AttnDownBlock2D" if i in config.attention else "ResnetDownsampleBlock2D" for i in levels
        ),
        up_block_types=tuple(
            "AttnUpBlock2D" if i in config.attention else "ResnetUpsampleBlock2D" for i in reversed(levels)
        ),
        downsample_type="resnet",
        upsample_type="resnet",
        resnet_time_scale_shift="scale_shift",
        attn_norm_num_groups=32,
        norm_num_groups=32,
        norm_eps=1e-5,
        freq_shift=0,
        flip_sin_to_cos=True,
    )
    twin.load_state_dict(_renamed(unet), strict=True)
    return twin.requires_grad_(False).eval()


def _renamed(unet: ADMUNet) -> dict[str, torch.Tensor]:
    config, state = unet.config, unet.state_dict()
    found: dict[str, torch.Tensor] = {}

    def copy(source: str, target: str) -> None:
        for part in ("weight", "bias"):
            if f"{source}.{part}" in state:
                found[f"{target}.{part}"] = state[f"{source}.{part}"]

    def residual(source: str, target: str) -> None:
        for ours, theirs in RESIDUAL.items():
            copy(f"{source}.{ours}", f"{target}.{theirs}")

    def attention(source: str, target: str) -> None:
        copy(f"{source}.norm", f"{target}.group_norm")
        channels = state[f"{source}.proj_out.weight"].shape[0]
        heads = channels // config.head_channels
        for part, name in enumerate(("to_q", "to_k", "to_v")):
            for kind in ("weight", "bias"):
                split = state[f"{source}.qkv.{kind}"].reshape(heads, 3, config.head_channels, -1)[:, part]
                found[f"{target}.{name}.{kind}"] = split.reshape((channels, -1) if kind == "weight" else (channels,))
        found[f"{target}.to_out.0.weight"] = state[f"{source}.proj_out.weight"][:, :, 0]
        found[f"{target}.to_out.0.bias"] = state[f"{source}.proj_out.bias"]

    copy("time_embed.0", "time_embedding.linear_1")
    copy("time_embed.2", "time_embedding.linear_2")
    copy("input_blocks.0.0", "conv_in")
    copy("out.0", "conv_norm_out")
    copy("out.2", "conv_out")
    residual("middle_block.0", "mid_block.resnets.0")
    attention("middle_block.1", "mid_block.attentions.0")
    residual("middle_block.2", "mid_block.resnets.1")
    period, levels = config.blocks + 1, len(config.multipliers)
    for level in range(levels):
        for block in range(config.blocks):
            index, target = 1 + level * period + block, f"down_blocks.{level}"
            residual(f"input_blocks.{index}.0", f"{target}.resnets.{block}")
            if level in config.attention:
                attention(f"input_blocks.{index}.1", f"{target}.attentions.{block}")
        if level < levels - 1:
            residual(f"input_blocks.{(level + 1) * period}.0", f"down_blocks.{level}.downsamplers.0")
        for block in range(period):
            index, target = level * period + block, f"up_blocks.{level}"
            attentive = levels - 1 - level in config.attention
            residual(f"output_blocks.{index}.0", f"{target}.resnets.{block}")
            if attentive:
                attention(f"output_blocks.{index}.1", f"{target}.attentions.{block}")
        if level < levels - 1:
            residual(f"output_blocks.{index}.{1 + attentive}", f"{target}.upsamplers.0")
    return found
