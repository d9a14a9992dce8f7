"""Images to tokens: shards of encoder features on disk, and one embedding per image.

A shard holds the tokens of `SHARD` images: float16 or float32 `[images * tokens, dim]`, image after image, prefix
tokens first, then patches row by row. Beside the shards lie `spec.json` and `embeddings.npy` `[images, dim]`. The
thumbnails are made from the same decoded images, and lie in `thumbs-<size>/` for the stage `thumbs`.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from engine.atlas.writer import AtlasWriter
from engine.dictionary.tokens import LARGEST, first_unusable
from engine.errors import BlindspotError
from engine.files import read_json, write_array, write_json
from engine.vision.encoder import Encoder, Tokens
from engine.vision.preprocess import decoded_image, to_tensor
from engine.vision.spec import EncoderConfig, EncoderSpec
from precompute.runner import Context, Progress, Stage, fingerprint_fields, model_input
from precompute.stages.corpus import ImageRecord, images_of
from precompute.stages.thumbnails import save_thumbnail, thumbnails_folder

SHARD = 64
"""Images per shard; fixed, so that an interrupted run cuts the same shards."""
SPEC = "spec.json"
EMBEDDINGS = "embeddings.npy"


class EncodeStage(Stage):
    """`encode/S`: the tokens and the embedding of every image of a source."""

    def __init__(self, context: Context, source: str) -> None:
        encoder = context.recipe.encoder
        params, reads = model_input("encoder.id", encoder.id, fingerprint_fields(encoder, "id"))
        super().__init__(context, f"encode/{source}", params, (context.images_stage(source),), reads)
        self.source = source

    def run(self, folder: Path, progress: Progress) -> dict[str, int]:
        """Write shards of tokens and the embeddings."""
        recipe, images = self.context.recipe, images_of(self.context, self.source)
        config, limit = recipe.encoder, recipe.limits.max_pixels
        return encode(config, images, limit, folder, progress, recipe.thumbs.size, self.source)

    @classmethod
    def add_to_atlas(cls, context: Context, writer: AtlasWriter) -> None:
        """Write the index of all images' embeddings."""
        writer.write_index("images.faiss", np.concatenate([embeddings_of(context, name) for name in context.sources]))


def embeddings_of(context: Context, source: str) -> np.ndarray:
    """One unit vector per image of a source, float32 `[images, dim]`."""
    return np.load(context.folder(f"encode/{source}") / EMBEDDINGS)


def read_spec(folder: Path) -> EncoderSpec:
    """What an encode stage was encoded with."""
    return EncoderSpec.from_dict(read_json(folder / SPEC))


def token_shards(folder: Path) -> list[Path]:
    """The shards of an encode stage, in order."""
    return sorted(folder.glob("tokens-*.npy"))


def encode(
    config: EncoderConfig,
    images: Sequence[ImageRecord],
    max_pixels: int,
    folder: Path,
    progress: Progress,
    thumbnail_size: int | None = None,
    source: str = "images",
) -> dict[str, int]:
    """Encode the images of a source; shards that are there already are kept.

    Parameters
    ----------
    config : the encoder and how it runs.
    images : the images.
    max_pixels : as when they were gathered.
    folder : the stage's folder.
    progress : called with the images encoded and all images.
    thumbnail_size : longest side, in pixels, of the thumbnails that are made too; none are if not given.
    source : name of the source, for messages.

    Raises
    ------
    BlindspotError
        If the encoder cannot be loaded, an image has disappeared meanwhile, or its tokens are not finite or more than
        the store holds.
    """
    starts = range(0, len(images), SHARD)
    embedded = [folder / f"embeddings-{number:05d}.npy" for number in range(len(starts))]
    shards = [folder / f"tokens-{number:05d}.npy" for number in range(len(starts))]
    left = [number for number in range(len(starts)) if not (embedded[number].exists() and shards[number].exists())]
    progress((len(starts) - len(left)) * SHARD, len(images))
    if left or not (folder / SPEC).exists():
        encoder = Encoder.from_pretrained(config)
        if (folder / SPEC).exists():  # what an older version began it finishes alike
            encoder.spec = replace(encoder.spec, eight_bits=read_spec(folder).eight_bits)
        write_json(folder / SPEC, encoder.spec.to_dict())

    def read(position: int) -> Tensor:
        with decoded_image(images[position].path, max_pixels=max_pixels) as image:
            pixels = to_tensor([image], encoder.spec)
            if thumbnail_size is not None:
                save_thumbnail(image, thumbnail_size, thumbnails_folder(folder, thumbnail_size), position)
            return pixels

    for number in left:
        end = min((number + 1) * SHARD, len(images))
        tokens: list[np.ndarray] = []
        embeddings: list[np.ndarray] = []
        with ThreadPoolExecutor() as pool, torch.inference_mode():
            pixels = pool.map(read, range(number * SHARD, end))
            while batch := list(islice(pixels, config.batch)):
                found = encoder(torch.cat(batch))
                computed = found.flat().flatten(0, 1).float().cpu().numpy()
                with np.errstate(over="ignore"):
                    tokens.append(computed.astype(config.store))
                if (row := first_unusable(tokens[-1])) is not None:
                    position = number * SHARD + sum(map(len, embeddings)) + row // encoder.spec.tokens
                    raise _unusable(config, source, images[position].file, computed[row])
                embeddings.append(embed(found.prefix, found.patches).cpu().numpy())
        write_array(shards[number], np.concatenate(tokens))
        write_array(embedded[number], np.concatenate(embeddings))
        progress(end, len(images))
    write_array(folder / EMBEDDINGS, np.concatenate([np.load(path) for path in embedded]))
    return {"images": len(images)}


def _unusable(config: EncoderConfig, source: str, file: str, token: np.ndarray) -> BlindspotError:
    """What is wrong with one token [dim] as it was computed, and what helps."""
    where = config.hook or ("the last layer" if config.layer is None else f"layer {config.layer}")
    finite, largest = np.isfinite(token).all(), float(np.abs(token).max())
    what = f"reach {largest:.6g}" if finite else "are NaN or infinite"
    if not finite and config.dtype != "float32":
        remedy = f"computing in {config.dtype} overflows; set encoder.dtype=float32"
        remedy += " and encoder.store=float32" if config.store == "float16" else ""
    elif finite and largest < LARGEST["float32"]:
        remedy = f"{config.store} holds numbers below {LARGEST[config.store]:.0f}; set encoder.store=float32"
    else:
        remedy = f"nothing can be computed with them; read another encoder.layer or encoder.hook of {config.id}"
    return BlindspotError(f"The tokens of the image {file} of the source {source} {what} at {where}: {remedy}.")


def embed(
    prefix: Float[Tensor, "images prefix dim"], patches: Float[Tensor, "images height width dim"]
) -> Float[Tensor, "images dim"]:
    """One unit vector per image: its class token, or the mean patch of an encoder that has none."""
    return Tokens(patches, prefix).embedding()
