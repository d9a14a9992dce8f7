"""The pictures of an atlas and the index that finds similar ones."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from engine.atlas import schema
from engine.atlas.storage import damaged
from engine.errors import BlindspotError


class Hits(NamedTuple):
    """Images found by similarity, best first."""

    images: np.ndarray
    """[count] int64 global image ids."""
    similarities: np.ndarray
    """[count] float32 cosines."""


def read_thumb(root: Path, image: int) -> bytes:
    """The webp bytes of the thumbnail of `image`."""
    path = root / schema.thumb_file(image)
    try:
        return path.read_bytes()
    except OSError as error:
        raise BlindspotError(f"The thumbnail {path} is missing: the atlas is incomplete, rebuild it.") from error


def read_drawn(root: Path, concept: int, rank: int) -> bytes:
    """The webp bytes of one of the images drawn for a concept."""
    path = root / schema.gallery_file(concept, rank)
    try:
        return path.read_bytes()
    except OSError as error:
        raise BlindspotError(f"The drawn image {path} is missing: run `python -m precompute gallery` again.") from error


def decode_thumb(root: Path, image: int) -> Image.Image:
    """The thumbnail of `image` as an RGB picture."""
    try:
        with Image.open(io.BytesIO(read_thumb(root, image)), formats=["WEBP"]) as picture:
            return picture.convert("RGB")
    except (UnidentifiedImageError, OSError) as error:
        raise damaged(root / schema.thumb_file(image), error) from error


class ImageIndex:
    """The cosine index `images.faiss`; row i is the embedding of global image id i.

    FAISS is set to one thread for the length of a query: for a single one, starting its threads costs more than the
    search.
    """

    def __init__(self, root: Path, images: int) -> None:
        import faiss

        path = root / "images.faiss"
        if not path.is_file():
            raise BlindspotError(f"{path} is missing: this atlas cannot search by image; rebuild it with its index.")
        try:
            self._index: Any = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
        except RuntimeError as error:
            raise damaged(path, "FAISS cannot read it") from error
        if self._index.ntotal != images:
            raise damaged(path, f"it holds {self._index.ntotal} images instead of {images}")

    @property
    def dim(self) -> int:
        """Size of an embedding."""
        return int(self._index.d)

    def vector(self, image: int) -> np.ndarray:
        """[d] the unit embedding of an image of the atlas."""
        return self._index.reconstruct(int(image))

    def search(self, vector: np.ndarray, within: range, count: int) -> Hits:
        """The `count` images in the id range `within` that are most similar to `vector` [d]."""
        import faiss

        unit = np.ascontiguousarray(vector, np.float32).reshape(1, -1)
        if unit.shape[1] != self.dim or not np.isfinite(unit).all():
            raise BlindspotError(f"The query is no vector of {self.dim} finite numbers, as the image index needs.")
        unit = unit / max(float(np.linalg.norm(unit)), 1e-12)
        count = min(count, len(within))
        if count < 1:
            return Hits(np.empty(0, np.int64), np.empty(0, np.float32))
        selected = faiss.IDSelectorRange(within.start, within.stop)
        threads = faiss.omp_get_max_threads()
        faiss.omp_set_num_threads(1)
        try:
            values, ids = self._index.search(unit, count, params=faiss.SearchParameters(sel=selected))
        finally:
            faiss.omp_set_num_threads(threads)
        return Hits(ids[0][ids[0] >= 0], values[0][ids[0] >= 0])
