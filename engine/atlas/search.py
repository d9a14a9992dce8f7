"""Finds concepts by what a person types (a number, a label or a word), and images by their embeddings."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from struct import Struct
from typing import Any, NamedTuple

import numpy as np

from engine.atlas.storage import damaged, parsing
from engine.errors import BlindspotError
from engine.files import regular_file

_TERM = re.compile(r"\w+")
_EXACT, _PREFIX, _INSIDE = 1.0, 0.6, 0.3
_LABEL_WEIGHT = 2.0
_HEADER = Struct("<4siq16xBiQ")
"""How FAISS begins a flat index: its kind, dim, rows, whether it is trained, the metric and how many numbers follow."""


class Match(NamedTuple):
    """A concept that fits a query."""

    concept: int
    score: float
    """Higher is better; a concept named by its number outranks every other."""


class ConceptSearch:
    """An inverted index over the labels and words of all concepts.

    Parameters
    ----------
    labels : [K] label of each concept, empty when it has none.
    words : [K] words of each concept, most telling first.
    """

    def __init__(self, labels: Sequence[str], words: Sequence[Sequence[str]]) -> None:
        self._count = len(labels)
        self._terms: dict[str, dict[int, float]] = {}
        for concept, (label, listed) in enumerate(zip(labels, words, strict=True)):
            for term in _TERM.findall(label.lower()):
                self._note(term, concept, _LABEL_WEIGHT)
            for rank, word in enumerate(listed):
                for term in _TERM.findall(word.lower()):
                    self._note(term, concept, 1.0 / (1 + rank))

    def _note(self, term: str, concept: int, weight: float) -> None:
        concepts = self._terms.setdefault(term, {})
        concepts[concept] = max(concepts.get(concept, 0.0), weight)

    def find(self, text: str, count: int) -> list[Match]:
        """The best `count` concepts for `text`, best first, equal ones by concept.

        Every term of the text adds its best match: the whole term beats the beginning of one beats the inside of one,
        a label beats words, a telling word beats a later one.
        """
        scores: dict[int, float] = {}
        for term in dict.fromkeys(_TERM.findall(text.lower())):
            if term.isdecimal() and int(term) < self._count:
                scores[int(term)] = scores.get(int(term), 0.0) + 100.0
            for concept, score in self._term_scores(term).items():
                scores[concept] = scores.get(concept, 0.0) + score
        ranked = sorted(scores.items(), key=lambda item: (-item[1], item[0]))
        return [Match(concept, score) for concept, score in ranked[: max(count, 0)]]

    def matching(self, text: str) -> set[int]:
        """All concepts that every term of `text` fits, by number or by the inside of a word; none for no term."""
        found: set[int] | None = None
        for term in dict.fromkeys(_TERM.findall(text.lower())):
            fitting = {int(term)} if term.isdecimal() and int(term) < self._count else set()
            fitting.update(*(concepts for known, concepts in self._terms.items() if term in known))
            found = fitting if found is None else found & fitting
        return found or set()

    def spelled_like(self, text: str, count: int) -> list[str]:
        """Known terms that are spelled much like a term of `text` that no concept has, closest first."""
        unknown = [term for term in dict.fromkeys(_TERM.findall(text.lower())) if not self._term_scores(term)]
        return [near for term in unknown[:3] for near in get_close_matches(term, self._terms, count, 0.7)][:count]

    def _term_scores(self, term: str) -> dict[int, float]:
        best: dict[int, float] = {}
        for known, concepts in self._terms.items():
            if term not in known:
                continue
            fit = _EXACT if known == term else _PREFIX if known.startswith(term) else _INSIDE
            for concept, weight in concepts.items():
                best[concept] = max(best.get(concept, 0.0), fit * weight)
        return best


class Hits(NamedTuple):
    """Images found by similarity, best first."""

    images: np.ndarray
    """[count] int64 global image ids."""
    similarities: np.ndarray
    """[count] float32 cosines."""


class ImageIndex:
    """The cosine index `images.faiss`; row i is the embedding of global image id i.

    FAISS is set to one thread for the length of a query: for a single one, starting its threads costs more than the
    search.
    """

    def __init__(self, root: Path, images: int) -> None:
        path = root / "images.faiss"
        if not path.exists():
            raise BlindspotError(f"{path} is missing: this atlas cannot search by image; rebuild it with its index.")
        self._index: Any = open_index(root, path.name)
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
        parameters: Any = faiss.SearchParameters
        inside = parameters(sel=faiss.IDSelectorRange(within.start, within.stop))
        threads = faiss.omp_get_max_threads()
        faiss.omp_set_num_threads(1)
        try:
            values, ids = self._index.search(unit, count, params=inside)
        finally:
            faiss.omp_set_num_threads(threads)
        return Hits(ids[0][ids[0] >= 0], values[0][ids[0] >= 0])


def open_index(root: Path, name: str) -> Any:
    """Map the cosine index `name` of the atlas at `root` from disk.

    FAISS sees only what its own header and the file's size show to be a flat inner-product index: other kinds may name
    further files to open, and a damaged one can crash it.

    Raises
    ------
    BlindspotError
        If the file is missing, or anything else.
    """
    import faiss

    path = root / name
    with parsing(path):
        size = regular_file(root, name).stat().st_size
        with path.open("rb") as file:
            kind, dim, rows, trained, metric, numbers = _HEADER.unpack(file.read(_HEADER.size).ljust(_HEADER.size))
        whole = numbers == dim * rows and size == _HEADER.size + 4 * numbers
        if (kind, trained, metric) != (b"IxFI", 1, faiss.METRIC_INNER_PRODUCT) or dim < 1 or rows < 0 or not whole:
            raise damaged(path, "FAISS cannot read it as a whole cosine index")
        return faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
