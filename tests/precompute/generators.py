"""The pipelines of the presets: their real classes with few channels and random weights, saved as hubs keep them."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from diffusers import (
    AutoencoderDC,
    AutoencoderKL,
    AutoencoderKLQwenImage,
    DDIMScheduler,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    KandinskyCombinedPipeline,
    PixArtAlphaPipeline,
    PixArtTransformer2DModel,
    PriorTransformer,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    SanaPipeline,
    SanaTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    UnCLIPScheduler,
    UNet2DConditionModel,
    VQModel,
)
from diffusers.pipelines.kandinsky import MultilingualCLIP
from diffusers.pipelines.kandinsky.text_encoder import MCLIPConfig
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    Gemma2Config,
    Gemma2Model,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
    XLMRobertaTokenizer,
)

from tests.engine.priors.tiny import tiny_conditional_unet, tiny_pipeline, tiny_text, tiny_tokenizer, tiny_xl_pipeline

LETTERS = "abcdefghijklmnopqrstuvwxyz"
FEW = {"block_out_channels": (4,), "norm_num_groups": 1, "layers_per_block": 1}


def autoencoder(latent_channels: int = 4, levels: int = 1) -> AutoencoderKL:
    """Halves the side once less than it has levels."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        latent_channels=latent_channels,
        scaling_factor=0.5,
        shift_factor=0.1,
        **FEW | {"block_out_channels": (4,) * levels},
    )


def spiece(folder: Path) -> T5TokenizerFast:
    """A T5 tokenizer of a sentencepiece model alone, as PixArt's repository has it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "words.txt").write_text("\n".join(f"{a} {b} {a}{b} ball box" for a in LETTERS for b in LETTERS))
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "words.txt"), model_prefix=str(folder / "spiece"), vocab_size=60, hard_vocab_limit=False,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2,
    )  # fmt: skip
    return T5TokenizerFast.from_pretrained(folder, model_max_length=16)


def t5() -> T5EncoderModel:
    return T5EncoderModel(T5Config(vocab_size=200, d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=2))


def clip(folder: Path) -> tuple[CLIPTokenizer, CLIPTextConfig]:
    tokenizer = tiny_tokenizer(folder)
    return tokenizer, tiny_text(tokenizer)


def kandinsky(scratch: Path) -> DiffusionPipeline:
    tokenizer, text = clip(scratch / "clip")
    words = [
        ("<s>", 0.0),
        ("<pad>", 0.0),
        ("</s>", 0.0),
        ("<unk>", 0.0),
        *((letter, -3.0) for letter in ("▁", *LETTERS)),
    ]
    unet = UNet2DConditionModel(
        **FEW | {"block_out_channels": (8, 8), "norm_num_groups": 4},
        sample_size=4,
        in_channels=4,
        out_channels=8,
        addition_embed_type="text_image",
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        encoder_hid_dim=8,
        encoder_hid_dim_type="text_image_proj",
        cross_attention_dim=8,
        attention_head_dim=4,
        resnet_time_scale_shift="scale_shift",
    )
    multilingual = MCLIPConfig(
        numDims=8, transformerDimensions=8, hidden_size=8, intermediate_size=8, num_attention_heads=2,
        num_hidden_layers=1, vocab_size=60,
    )  # fmt: skip
    vision = CLIPVisionConfig(
        hidden_size=8, image_size=28, projection_dim=8, intermediate_size=8, num_attention_heads=2,
        num_hidden_layers=1, patch_size=14,
    )  # fmt: skip
    return KandinskyCombinedPipeline(
        text_encoder=MultilingualCLIP(multilingual).eval(),
        tokenizer=XLMRobertaTokenizer(vocab=words, model_max_length=77),
        unet=unet,
        scheduler=DDIMScheduler(beta_start=0.00085, beta_end=0.012, clip_sample=False, set_alpha_to_one=False),
        movq=VQModel(
            **FEW | {"block_out_channels": (32, 32)},
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=4,
            num_vq_embeddings=8,
            vq_embed_dim=4,
            norm_type="spatial",
        ),
        prior_prior=PriorTransformer(
            num_attention_heads=2, attention_head_dim=4, num_layers=1, embedding_dim=8, num_embeddings=8
        ),
        prior_image_encoder=CLIPVisionModelWithProjection(vision),
        prior_text_encoder=CLIPTextModelWithProjection(text),
        prior_tokenizer=tokenizer,
        prior_scheduler=UnCLIPScheduler(
            variance_type="fixed_small_log", prediction_type="sample", clip_sample_range=10
        ),
        prior_image_processor=CLIPImageProcessor(size={"shortest_edge": 28}, crop_size=28),
    )


def pixart(scratch: Path) -> DiffusionPipeline:
    transformer = PixArtTransformer2DModel(
        sample_size=32, num_layers=1, patch_size=2, attention_head_dim=4, num_attention_heads=2, caption_channels=16,
        in_channels=4, out_channels=8, cross_attention_dim=8, norm_num_groups=4,
    )  # fmt: skip
    scheduler = DDIMScheduler(clip_sample=False)
    return PixArtAlphaPipeline(spiece(scratch / "spiece"), t5(), autoencoder(levels=4), transformer, scheduler)


def sd3(scratch: Path) -> DiffusionPipeline:
    tokenizer, text = clip(scratch / "clip")
    transformer = SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, out_channels=4, num_layers=1, attention_head_dim=8,
        num_attention_heads=2, joint_attention_dim=16, caption_projection_dim=16, pooled_projection_dim=16,
    )  # fmt: skip
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=autoencoder(),
        text_encoder=CLIPTextModelWithProjection(text),
        tokenizer=tokenizer,
        text_encoder_2=CLIPTextModelWithProjection(text),
        tokenizer_2=tokenizer,
        text_encoder_3=t5(),
        tokenizer_3=spiece(scratch / "spiece"),
    )


def flux(scratch: Path) -> DiffusionPipeline:
    tokenizer, text = clip(scratch / "clip")
    transformer = FluxTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=16, pooled_projection_dim=8, axes_dims_rope=(2, 2, 4),
    )  # fmt: skip
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=autoencoder(),
        text_encoder=CLIPTextModel(text),
        tokenizer=tokenizer,
        text_encoder_2=t5(),
        tokenizer_2=spiece(scratch / "spiece"),
        transformer=transformer,
    )


def sana(scratch: Path) -> DiffusionPipeline:
    words = {word: at for at, word in enumerate(("<pad>", "<eos>", "<bos>", "<unk>", *LETTERS))}
    backend = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="<eos>", bos_token="<bos>", unk_token="<unk>"
    )
    text = Gemma2Config(
        head_dim=4, hidden_size=8, intermediate_size=8, num_attention_heads=2, num_hidden_layers=1,
        num_key_value_heads=2, vocab_size=len(words), max_position_embeddings=8192,
    )  # fmt: skip
    vae = AutoencoderDC(
        latent_channels=4,
        attention_head_dim=2,
        encoder_block_types=("ResBlock", "EfficientViTBlock"),
        decoder_block_types=("ResBlock", "EfficientViTBlock"),
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        encoder_qkv_multiscales=((), (5,)),
        decoder_qkv_multiscales=((), (5,)),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        upsample_block_type="interpolate",
        decoder_act_fns="silu",
    )
    transformer = SanaTransformer2DModel(
        in_channels=4, out_channels=4, num_layers=1, num_attention_heads=2, attention_head_dim=4, sample_size=32,
        num_cross_attention_heads=2, cross_attention_head_dim=4, cross_attention_dim=8, caption_channels=8,
    )  # fmt: skip
    return SanaPipeline(tokenizer, Gemma2Model(text), vae, transformer, FlowMatchEulerDiscreteScheduler(shift=3.0))


def qwen(scratch: Path) -> DiffusionPipeline:
    words = {word: at for at, word in enumerate((*sorted(pre_tokenizers.ByteLevel.alphabet()), "<|endoftext|>"))}
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
    text = {"num_hidden_layers": 1, "num_key_value_heads": 2, "rope_scaling": {"mrope_section": [1, 1, 2]}}
    config = Qwen2_5_VLConfig(
        text_config=sizes | text | {"vocab_size": 300},
        vision_config={"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16},
    )
    vae = AutoencoderKLQwenImage(
        base_dim=8, z_dim=4, dim_mult=[1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True],
        latents_mean=[0.0] * 4, latents_std=[1.0] * 4,
    )  # fmt: skip
    transformer = QwenImageTransformer2DModel(
        patch_size=2, in_channels=16, out_channels=4, num_layers=1, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=16, axes_dims_rope=(4, 2, 2),
    )  # fmt: skip
    return QwenImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=vae,
        text_encoder=Qwen2_5_VLForConditionalGeneration(config).eval(),
        tokenizer=Qwen2Tokenizer(vocab=words, merges=[]),
        transformer=transformer,
    )


MADE: dict[str, Callable[[Path], Any]] = {
    "kandinsky": kandinsky, "pixart": pixart, "sd-3-5": sd3, "flux-schnell": flux, "sana": sana,
    "qwen-image": qwen,
}  # fmt: skip


def save_generator(name: str, folder: Path) -> Path:
    """The folder of the pipeline that a preset names, as its repository looks; `dpo` is only a UNet."""
    if name == "sd-1-5":
        return tiny_pipeline(folder, "kl")
    if name == "sd-2-1":
        return tiny_pipeline(folder, "kl", use_linear_projection=True, attention_head_dim=(2, 4))
    if name == "sdxl":
        return tiny_xl_pipeline(folder)
    if name == "dpo":
        torch.manual_seed(1)
        tiny_conditional_unet().save_pretrained(folder / "unet")
        return folder
    torch.manual_seed(0)
    scratch = folder.with_name(f"{folder.name}-scratch")
    MADE[name](scratch).save_pretrained(folder)
    for tokenizer in folder.glob("tokenizer*") if (scratch / "spiece").exists() else ():
        if not (tokenizer / "merges.txt").exists() and '"T5' in (tokenizer / "tokenizer_config.json").read_text():
            (tokenizer / "tokenizer.json").unlink()  # a repository has the sentencepiece model alone
            shutil.copy(scratch / "spiece" / "spiece.model", tokenizer)
    return folder


RENAMED = {
    "unet": (
        *((r"down_blocks\.0\.downsamplers\.0\.conv", "input_blocks.2.0.op"), (r"^conv_in", "input_blocks.0.0")),
        *((r"down_blocks\.0\.resnets\.0", "input_blocks.1.0"), (r"down_blocks\.1\.resnets\.0", "input_blocks.3.0")),
        *((r"down_blocks\.1\.attentions\.0", "input_blocks.3.1"), (r"mid_block\.resnets\.0", "middle_block.0")),
        *((r"mid_block\.attentions\.0", "middle_block.1"), (r"mid_block\.resnets\.1", "middle_block.2")),
        *((rf"up_blocks\.0\.resnets\.{n}", f"output_blocks.{n}.0") for n in (0, 1)),
        *((rf"up_blocks\.0\.attentions\.{n}", f"output_blocks.{n}.1") for n in (0, 1)),
        *((rf"up_blocks\.1\.resnets\.{n}", f"output_blocks.{n + 2}.0") for n in (0, 1)),
        *((r"up_blocks\.0\.upsamplers\.0", "output_blocks.1.2"), (r"conv_norm_out", "out.0"), (r"^conv_out", "out.2")),
        *((r"time_embedding\.linear_1", "time_embed.0"), (r"time_embedding\.linear_2", "time_embed.2")),
        *((r"(put_blocks\.\d\.0|middle_block\.\d)\.norm1\.", r"\1.in_layers.0."), (r"\.conv1\.", ".in_layers.2.")),
        *((r"(put_blocks\.\d\.0|middle_block\.\d)\.norm2\.", r"\1.out_layers.0."), (r"\.conv2\.", ".out_layers.3.")),
        *((r"\.time_emb_proj\.", ".emb_layers.1."), (r"\.conv_shortcut\.", ".skip_connection.")),
    ),
    "vae": (
        (r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2"),
        (r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample"),
        *((r"mid_block\.resnets\.0", "mid.block_1"), (r"mid_block\.resnets\.1", "mid.block_2")),
        *((r"mid_block\.attentions\.0", "mid.attn_1"), (r"group_norm", "norm"), (r"to_out\.0", "proj_out")),
        *((r"to_([qkv])\.", r"\1."), (r"conv_norm_out", "norm_out"), (r"conv_shortcut", "nin_shortcut")),
        *((rf"up_blocks\.{n}\.resnets\.(\d)", rf"up.{1 - n}.block.\1") for n in (0, 1)),
        (r"up_blocks\.0\.upsamplers\.0", "up.1.upsample"),
    ),
    "text_encoder": ((r"^", "text_model."),),
}  # fmt: skip
"""From diffusers' names of the tiny Stable Diffusion's tensors to those of the first checkpoints."""
PREFIXES = {
    "unet": "model.diffusion_model.", "vae": "first_stage_model.", "text_encoder": "cond_stage_model.transformer."
}  # fmt: skip


def save_single_file(folder: Path, file: Path) -> Path:
    """A `StableDiffusionPipeline` as one file, with the names that its authors gave."""
    tensors = {}
    for part, renames in RENAMED.items():
        for name, value in load_file(next((folder / part).glob("*.safetensors"))).items():
            for pattern, other in renames:
                name = re.sub(pattern, other, name)
            convolution = part == "vae" and re.search(r"attn_1\.(q|k|v|proj_out)\.weight", name)
            tensors[PREFIXES[part] + name] = value[..., None, None].contiguous() if convolution else value
    save_file(tensors, file)
    return file
