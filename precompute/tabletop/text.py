"""The generators' ears: a CLIP tokenizer learned from captions and a small CLIP text encoder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

__all__ = ["LENGTH", "build_encoder", "build_tokenizer", "token_ids"]

LENGTH = 28
"""Tokens of a prompt, start and end included; the longest caption of four things fits."""
START, END = "<|startoftext|>", "<|endoftext|>"


def build_tokenizer(captions: Sequence[str], folder: Path) -> CLIPTokenizer:
    """Learn a byte-pair vocabulary in which every word of the captions is one token, and write it to `folder`."""
    model = Tokenizer(models.BPE(unk_token=END, end_of_word_suffix="</w>"))
    model.normalizer = normalizers.Lowercase()
    model.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
    letters = list("abcdefghijklmnopqrstuvwxyz0123456789,.-'")
    trainer = trainers.BpeTrainer(
        vocab_size=700, initial_alphabet=letters, end_of_word_suffix="</w>", show_progress=False, min_frequency=1
    )
    model.train_from_iterator([*captions, " ".join(letters)], trainer)
    learned = json.loads(model.to_str())["model"]
    tokens = [token for token, _ in sorted(learned["vocab"].items(), key=lambda item: item[1])]
    vocabulary = {token: index for index, token in enumerate([*tokens, START, END])}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    merges = [" ".join(pair) if isinstance(pair, list) else pair for pair in learned["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    tokenizer = CLIPTokenizer.from_pretrained(folder, model_max_length=LENGTH)
    tokenizer.save_pretrained(folder)
    return tokenizer


def build_encoder(tokenizer: CLIPTokenizer, width: int = 128) -> CLIPTextModel:
    """An untrained text encoder for that vocabulary."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=3 * width,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=LENGTH,
            projection_dim=width,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def token_ids(tokenizer: CLIPTokenizer, prompts: Sequence[str]) -> Tensor:
    """Padded token ids, int64 `[n, LENGTH]`."""
    padded = tokenizer(list(prompts), padding="max_length", truncation=True, max_length=LENGTH)
    return torch.tensor(padded["input_ids"])
