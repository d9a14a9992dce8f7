"""Makes a reader of its name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.errors import BlindspotError
from engine.readers.asking import Backend, LimitedReader
from engine.readers.cache import AnswerCache
from engine.readers.limits import Limits
from engine.readers.openai_endpoint import OpenAIBackend

ENDPOINT = "openai:"


def load_reader(
    spec: str, *, cache: Path | None = None, base_url: str | None = None, device: str = "auto", **limits: Any
) -> LimitedReader:
    """Return the reader that `spec` names.

    Parameters
    ----------
    spec
        "openai:MODEL" for an OpenAI-compatible endpoint, whose base URL and key come from OPENAI_BASE_URL and
        OPENAI_API_KEY; or the folder or hub id of a `transformers` image-text-to-text model.
    cache
        The file of answers, see `engine.readers.cache.answers_file`; None keeps them in memory only.
    base_url
        Replaces OPENAI_BASE_URL.
    device
        Of a local model.
    limits
        The fields of `engine.readers.limits.Limits`.

    Raises
    ------
    BlindspotError
        If there is no such reader, or its limits cannot be.
    """
    within = Limits(**limits)
    backend: Backend
    if spec.startswith(ENDPOINT):
        if not (model := spec.removeprefix(ENDPOINT).strip()):
            raise BlindspotError("The reader openai: lacks its model: give openai:MODEL, for example openai:gpt-4o.")
        backend = OpenAIBackend(model, within, base_url)
    else:
        from engine.readers.local import LocalBackend

        backend, within = LocalBackend(spec, within, device), replace(within, concurrency=1, retries=0)
    return LimitedReader(backend, AnswerCache(cache), within)
