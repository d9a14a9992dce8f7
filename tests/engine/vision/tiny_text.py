"""Real CLIP and SigLIP models of transformers, tiny and random, in folders as the hub has them."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
)

from tests.engine.priors.tiny import tiny_tokenizer

LAYERS = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
IMAGES = LAYERS | {"image_size": 32, "patch_size": 8}


def tiny_clip(folder: Path) -> Path:
    """Save a CLIP of 32 x 32 images and 8 tokens, in whose space an image has 12 numbers; its folder."""
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer(folder.with_name(f"{folder.name}-tokenizer"))
    text = LAYERS | {"vocab_size": len(tokenizer), "max_position_embeddings": 8, "bos_token_id": 0, "eos_token_id": 1}
    CLIPModel(CLIPConfig(text_config=text, vision_config=IMAGES, projection_dim=12)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def tiny_siglip(folder: Path) -> Path:
    """Save a SigLIP of 32 x 32 images and 8 tokens; its folder. Its tokenizer knows a few words."""
    torch.manual_seed(0)
    words = ["<pad>", "</s>", "<unk>", "a", "red", "ring", "blue"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    text = LAYERS | {"vocab_size": len(words), "max_position_embeddings": 8, "projection_size": 16}
    SiglipModel(SiglipConfig(text_config=text, vision_config=IMAGES)).save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=8,
        model_input_names=["input_ids"],
    ).save_pretrained(folder)  # fmt: skip
    SiglipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


MAKERS = {"clip": tiny_clip, "siglip": tiny_siglip}
