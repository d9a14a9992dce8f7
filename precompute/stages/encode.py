"""Images to tokens: shards of encoder features on disk, and one embedding per image.

A shard holds the tokens of `SHARD` images: float16 or float32 `[images * tokens, dim]`, image after image, prefix
tokens first, then patches row by row. Beside the shards lie `spec.json` and `embeddings.npy` `[images, dim]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from engine.files import read_json, write_array, write_json
from engine.vision.encoder import Encoder, Tokens
from engine.vision.preprocess import load_image, to_tensor
from engine.vision.spec import EncoderConfig, EncoderSpec
from precompute.plan import Progress
from precompute.stages.manifest import Picture

SHARD = 64
"""Images per shard; fixed, so that an interrupted run cuts the same shards."""
SPEC = "spec.json"
EMBEDDINGS = "embeddings.npy"


def encode(
    part: EncoderConfig, pictures: Sequence[Picture], max_pixels: int, folder: Path, progress: Progress
) -> dict[str, int]:
    """Encode the images of a source; shards that are there already are kept.

    Args:
        part: the encoder and how it runs.
        pictures: the images.
        max_pixels: as when they were gathered.
        folder: the stage's folder.
        progress: called with the images encoded and all images.

    Raises:
        BlindspotError: the encoder cannot be loaded, or an image has disappeared meanwhile.
    """
    spans = [slice(start, start + SHARD) for start in range(0, len(pictures), SHARD)]
    left = [number for number in range(len(spans)) if not _embedding_shard(folder, number).exists()]
    progress((len(spans) - len(left)) * SHARD, len(pictures))
    if left or not (folder / SPEC).exists():
        encoder = Encoder.from_pretrained(part)
        write_json(folder / SPEC, encoder.spec.to_dict())
    for number in left:
        tokens, embeddings = _encode_shard(encoder, part, pictures[spans[number]], max_pixels)
        write_array(token_shard(folder, number), tokens.astype(part.store))
        write_array(_embedding_shard(folder, number), embeddings)
        progress(min((number + 1) * SHARD, len(pictures)), len(pictures))
    shards = [np.load(_embedding_shard(folder, number)) for number in range(len(spans))]
    write_array(folder / EMBEDDINGS, np.concatenate(shards))
    return {"images": len(pictures)}


def read_spec(folder: Path) -> EncoderSpec:
    """What an encode stage was encoded with."""
    return EncoderSpec.from_dict(read_json(folder / SPEC))


def token_shards(folder: Path) -> list[Path]:
    """The shards of an encode stage, in order."""
    return sorted(folder.glob("tokens-*.npy"))


def token_shard(folder: Path, number: int) -> Path:
    """The file of one shard of tokens."""
    return folder / f"tokens-{number:05d}.npy"


def _embedding_shard(folder: Path, number: int) -> Path:
    return folder / f"embeddings-{number:05d}.npy"


def _encode_shard(
    encoder: Encoder, part: EncoderConfig, pictures: Sequence[Picture], max_pixels: int
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens `[images * tokens, dim]` and unit embeddings `[images, dim]`, both float32."""
    tokens, embeddings = [], []

    def read(picture: Picture) -> torch.Tensor:
        return to_tensor([load_image(picture.path, max_pixels=max_pixels)], encoder.spec)

    with ThreadPoolExecutor() as pool, torch.inference_mode():
        images = pool.map(read, pictures)
        for _ in range(0, len(pictures), part.batch):
            found = encoder(torch.cat(list(islice(images, part.batch))))
            tokens.append(found.flat().flatten(0, 1).float().cpu().numpy())
            embeddings.append(embed(found.prefix, found.patches).cpu().numpy())
    return np.concatenate(tokens), np.concatenate(embeddings)


def embed(prefix: torch.Tensor, patches: torch.Tensor) -> torch.Tensor:
    """One unit vector per image: its class token, or the mean patch of an encoder that has none.

    Args:
        prefix: `[images, prefix tokens, dim]`.
        patches: `[images, height, width, dim]`.

    Returns:
        float32 `[images, dim]`.
    """
    return Tokens(patches, prefix).embedding()
