"""A vision-language model of `transformers` on this machine, by folder or hub id: safetensors, no code of its own."""

from __future__ import annotations

import hashlib
import io
import threading
from pathlib import Path
from typing import Any

from PIL import Image

from engine.devices import pick_device
from engine.errors import BlindspotError
from engine.hub import find_model, loading_options
from engine.readers.asking import CallFailed, Reply
from engine.readers.base import SYSTEM, Question, instructed
from engine.readers.limits import Limits


class LocalBackend:
    """Answers questions with an image-text-to-text model, one at a time, without sampling.

    Parameters
    ----------
    source
        A folder or a hub id.
    limits
        Its tokens of an answer.
    device
        "auto", "cpu", "cuda" or "cuda:1".

    Raises
    ------
    BlindspotError
        If there is no such model, or it does not take images and texts.
    """

    def __init__(self, source: str, limits: Limits, device: str = "auto") -> None:
        self._limits, self._device = limits, device
        self._found = find_model(
            source, f"There is no reader {source!r}: give openai:MODEL, or a model's folder or hub id."
        )
        self.name = f"local:{_name(self._found)}"
        self._lock = threading.Lock()
        self._loaded: tuple[Any, Any] | None = None

    def call(self, question: Question) -> Reply:
        """Answer one question."""
        import torch

        pictures = [Image.open(io.BytesIO(image)).convert("RGB") for image in question.images]
        told = f"{SYSTEM}\n\n{instructed(question)}"
        content = [*({"type": "image", "image": one} for one in pictures), {"type": "text", "text": told}]
        with self._lock, torch.inference_mode():
            # Loaded when first asked: a plan needs no weights.
            model, processor = self._loaded = self._loaded or _load(self._found, self._device)
            try:
                given = processor.apply_chat_template(
                    [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=True,
                    return_dict=True, return_tensors="pt",
                ).to(model.device)  # fmt: skip
                most = self._limits.max_tokens
                made = model.generate(**given, max_new_tokens=most, do_sample=False)
            except (ValueError, RuntimeError, IndexError, KeyError, TypeError) as error:  # too long, out of memory ...
                reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
                raise CallFailed(f"The model cannot answer: {reason}.", retry=False) from error
        read = given["input_ids"].shape[1]
        new = made[0, read:]
        text = processor.decode(new, skip_special_tokens=True)
        return Reply(text, None, len(new) >= most, read, len(new))


def _name(found: str | Path) -> str:
    """A hub id, or a folder's name with a mark of its files: another model in its place is another reader."""
    if isinstance(found, str):
        return found
    files = sorted((path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in found.iterdir())
    return f"{found.resolve().name}@{hashlib.sha256(repr(files).encode()).hexdigest()[:8]}"


def _load(found: str | Path, device: str) -> tuple[Any, Any]:
    """Model and processor; of a hub id, what an earlier download left on this machine is tried first."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    options = loading_options(found)
    for local in (True, False):
        try:
            processor = AutoProcessor.from_pretrained(str(found), local_files_only=local, trust_remote_code=False)
            model = AutoModelForImageTextToText.from_pretrained(
                str(found), use_safetensors=True, dtype="auto", local_files_only=local, **options
            )
            break
        except Exception as error:  # whatever a config of another kind makes transformers say
            if isinstance(found, Path) or not local:
                reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".:") + "."
                raise BlindspotError(f"The reader {found} cannot be loaded: {reason}") from error
    if not getattr(processor, "chat_template", None):
        raise BlindspotError(f"The reader {found} has no chat template: choose a model that answers questions.")
    return model.eval().requires_grad_(False).to(pick_device(device)), processor
