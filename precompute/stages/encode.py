"""Images to tokens: shards of encoder features on disk, and one embedding per image.

A shard holds the tokens of `SHARD` images: float16 or float32 `[images * tokens, dim]`, image after image, prefix
tokens first, then patches row by row. Beside the shards lie `spec.json` and `embeddings.npy` `[images, dim]`. The
thumbnails are made from the same decoded images, and lie in `thumbs-<size>/` for the stage `thumbs`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

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
from precompute.engines import Engine, LocalEngine
from precompute.runner import Context, Progress, Stage, fingerprint_fields, model_input
from precompute.stages.corpus import ImageRecord, images_of
from precompute.stages.thumbnails import save_thumbnail, thumbnails_folder

SHARD = 64
"""Images per shard; fixed, so that an interrupted run cuts the same shards."""
AHEAD = 32
"""Images, beyond those of the next batch, that are decoded before they are needed."""
TOGETHER = 8
"""Shards that a process of a cluster takes at a time: between these it waits for no image to be decoded."""
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
        size, engine = recipe.thumbs.size, self.context.engine
        return encode(config, images, limit, folder, progress, size, self.source, engine)

    @classmethod
    def add_to_atlas(cls, context: Context, writer: AtlasWriter) -> None:
        """Write the index of all images' embeddings."""
        writer.write_index("images.faiss", np.concatenate([embeddings_of(context, name) for name in context.sources]))


def embeddings_of(context: Context, source: str, mapped: bool = False) -> np.ndarray:
    """One unit vector per image of a source, float32 `[images, dim]`; on disk, read where it is used, if `mapped`."""
    return np.load(context.folder(f"encode/{source}") / EMBEDDINGS, mmap_mode="r" if mapped else None)


def read_spec(folder: Path) -> EncoderSpec:
    """What an encode stage was encoded with."""
    return EncoderSpec.from_dict(read_json(folder / SPEC))


def token_shards(folder: Path) -> list[Path]:
    """The shards of an encode stage, in order."""
    return sorted(folder.glob("tokens-*.npy"))


class Shard(NamedTuple):
    """The images whose tokens one file holds."""

    number: int
    images: tuple[ImageRecord, ...]

    def files(self, folder: Path) -> tuple[Path, Path]:
        """Where their tokens and embeddings are kept."""
        return folder / f"tokens-{self.number:05d}.npy", folder / f"embeddings-{self.number:05d}.npy"

    def done(self, folder: Path) -> bool:
        """Whether both are there."""
        return all(path.exists() for path in self.files(folder))


@dataclass
class _EncodeShards:
    """Worker: writes the tokens, embeddings and thumbnails of shards, as `encode` says; gives how many images.

    Threads decode the images of the next batches, of the next shard too, while the encoder computes.
    """

    config: EncoderConfig
    max_pixels: int
    folder: Path
    thumbnail_size: int | None
    source: str
    size: int
    """Images of a full shard."""
    encoder: Encoder | None = field(default=None, init=False)

    def __call__(self, items: Sequence[Shard]) -> Iterator[int]:
        encoder = self.encoder = self.encoder or self._load()
        left = [shard for shard in items if not shard.done(self.folder)]
        with ThreadPoolExecutor() as pool:
            each = [(shard, at) for shard in left for at in range(len(shard.images))]
            pixels = _ahead(pool, self._read, each, AHEAD + self.config.batch)
            waiting: deque[tuple[int, Future[None]]] = deque()
            for shard in left:
                found = self._encode(encoder, shard, pixels)
                waiting.append((len(shard.images), pool.submit(self._write, shard, *found)))
                if len(waiting) > 1:  # the last one is written while the next is computed
                    count, written = waiting.popleft()
                    written.result()
                    yield count
            for count, written in waiting:
                written.result()
                yield count
            yield from (len(shard.images) for shard in items if shard not in left)

    def _load(self) -> Encoder:
        """The encoder; its spec goes beside the shards."""
        encoder, path = Encoder.from_pretrained(self.config), self.folder / SPEC
        if path.exists():  # what an older version began it finishes alike
            encoder.spec = replace(encoder.spec, eight_bits=read_spec(self.folder).eight_bits)
        write_json(path, encoder.spec.to_dict())
        return encoder

    def _read(self, place: tuple[Shard, int]) -> Tensor:
        """One image as the encoder wants it; its thumbnail is made on the way."""
        assert self.encoder is not None
        shard, at = place
        with decoded_image(shard.images[at].path, max_pixels=self.max_pixels) as image:
            pixels = to_tensor([image], self.encoder.spec)
            if self.thumbnail_size is not None:
                folder, number = thumbnails_folder(self.folder, self.thumbnail_size), shard.number * self.size + at
                save_thumbnail(image, self.thumbnail_size, folder, number)
            return pixels

    def _encode(
        self, encoder: Encoder, shard: Shard, pixels: Iterator[Tensor]
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Tokens and embeddings of a shard, by batches."""
        config, tokens, embeddings = self.config, [], []
        for start in range(0, len(shard.images), config.batch):
            batch = list(islice(pixels, min(config.batch, len(shard.images) - start)))
            with torch.inference_mode():
                found = encoder(torch.cat(batch))
            computed = found.flat().flatten(0, 1).float().cpu().numpy()
            with np.errstate(over="ignore"):
                tokens.append(computed.astype(config.store))
            if (row := first_unusable(tokens[-1])) is not None:
                file = shard.images[start + row // encoder.spec.tokens].file
                raise _unusable(config, self.source, file, computed[row])
            embeddings.append(embed(found.prefix, found.patches).cpu().numpy())
        return tokens, embeddings

    def _write(self, shard: Shard, *found: list[np.ndarray]) -> None:
        for path, parts in zip(shard.files(self.folder), found, strict=True):
            write_array(path, np.concatenate(parts))


def _ahead(pool: Executor, read: Callable[[Any], Tensor], items: Iterable[Any], most: int) -> Iterator[Tensor]:
    """`pool.map(read, items)` that is at most so many items ahead of what was asked for."""
    waiting: deque[Future[Tensor]] = deque()
    for item in items:
        waiting.append(pool.submit(read, item))
        if len(waiting) >= most:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def encode(
    config: EncoderConfig,
    images: Sequence[ImageRecord],
    max_pixels: int,
    folder: Path,
    progress: Progress,
    thumbnail_size: int | None = None,
    source: str = "images",
    engine: Engine | None = None,
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
    engine : where they are encoded; here if not given.

    Raises
    ------
    BlindspotError
        If the encoder cannot be loaded, an image has disappeared meanwhile, or its tokens are not finite or more than
        the store holds.
    """
    starts = range(0, len(images), SHARD)
    shards = [Shard(number, tuple(images[start : start + SHARD])) for number, start in enumerate(starts)]
    left = [shard for shard in shards if not shard.done(folder)]
    if not left and not (folder / SPEC).exists():
        left = shards[:1]
    done = len(images) - sum(len(shard.images) for shard in left)
    progress(done, len(images))
    worker = _EncodeShards(config, max_pixels, folder, thumbnail_size, source, SHARD)
    for count in (engine or LocalEngine()).map(worker, left, config.device, TOGETHER):
        done += count
        progress(done, len(images))
    write_array(folder / EMBEDDINGS, np.concatenate([np.load(shard.files(folder)[1]) for shard in shards]))
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
