"""Judge a file on the Hugging Face hub before it is downloaded."""

from __future__ import annotations

from pickle import UnpicklingError

import torch

from engine.dictionary.published.modules import with_standins
from engine.dictionary.published.refusals import refuse_code

BLOCK = 2**20
"""Bytes per request; the names in a checkpoint of gigabytes take a few of these."""


def refuse_unread(repo_id: str, name: str, revision: str | None) -> None:
    """Refuse a PyTorch file with code inside by the names in its pickle, which is a small part of the file.

    Formats that are not zip files (PyTorch's before 1.6, saev's) are left to be judged once they are here.

    Raises
    ------
    BlindspotError
        When the pickle names an object that would not be built.
    """
    from huggingface_hub import HfFileSystem

    if name.endswith(".safetensors"):
        return
    where = f"{repo_id}/{name}"
    with HfFileSystem().open(where, revision=revision, block_size=BLOCK) as file, with_standins():
        try:
            refused = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(file))
        except UnpicklingError as error:
            raise refuse_code(where, None) from error
        except ValueError:
            return
    if refused:
        raise refuse_code(where, refused[0])
