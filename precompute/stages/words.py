"""Words that name a concept: those over-represented in the captions of the real images where its energy is highest.

The measure is the weighted log-odds ratio with an informative Dirichlet prior (Monroe et al. 2008), its z-score. Terms
are words and pairs of neighbouring words; of terms that share a word only the best is kept.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple
from unicodedata import category, normalize

import numpy as np
from scipy import sparse

from engine.atlas.schema import REAL
from engine.blindspots.label_scores import strong_from
from engine.blindspots.rows import Rows, column_groups
from engine.blindspots.words import weighted_log_odds
from engine.files import read_json, write_json
from precompute.runner import Context, Progress, Stage, fingerprint_fields
from precompute.stages.corpus import images_of
from precompute.stages.energies import stored_energy

WORDS = "words.json"
SIGNIFICANT = 2.0
"""z-score from which a term names a concept."""
SECOND = 0.6
"""The second term joins the label if its z-score is this share of the first one's."""
SEEN = 1 << 22
"""Marks by which a term that occurs for the first time is told, nearly always."""
FAVOUR_PAIRS = 1.05
"""Of 'palm', 'tree' and 'palm tree', equally telling, the pair is the better name."""
FILLERS = """
    a an the and or of on in at with to from by for as is are was were be been being it its this that these those there
    his her their he she they them we you i my your our some other into onto over under near next up down out off very
    while has have had do does not no which who whose
"""
STOPWORDS = frozenset(FILLERS.split())
MARKS = "".join(chr(code) for code in range(0x20000) if category(chr(code)).startswith("M")) + "\u200c\u200d"
"""Vowel signs, accents and joiners that belong to the letter before them."""
WORD = rf"(?:[^\W\d_][{MARKS}]*)+(?:['’-](?:[^\W\d_][{MARKS}]*)+)*"
UNSPACED = r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\u0e01-\u0eff\u1000-\u109f\u1780-\u17ff\U00020000-\U0003ffff]"
"""Characters of scripts that put no spaces between words."""
PIECE = f"{UNSPACED}+|[^{UNSPACED[1:]}+"
LEADING, TRAILING = "เ-ไເ-ໄ", "ะาำๅຽະາຳー々"
"""Vowels that stand before their consonant, and signs that only stand behind another."""


class ConceptWords(NamedTuple):
    """What a concept is called."""

    label: str
    origin: str
    """`captions`, or `number` if no term tells the concept from the others."""
    words: tuple[str, ...]
    """Best first."""


class Terms(NamedTuple):
    """Which caption has which term."""

    names: list[str]
    present: sparse.csr_matrix
    """0/1 `[captions, terms]`"""


class WordsStage(Stage):
    """`words`: the name of every concept."""

    unit = "tables"

    def __init__(self, context: Context) -> None:
        params = fingerprint_fields(context.recipe.words)
        super().__init__(context, "words", params, (f"energies/{REAL}", context.images_stage(REAL)))

    def run(self, folder: Path, progress: Progress) -> dict[str, int]:
        """Write `words.json`."""
        captions = [image.caption for image in images_of(self.context, REAL)]
        found = name_concepts(stored_energy(self.context, REAL), captions, self.context.recipe.words.count)
        return write_words(found, folder)


def write_words(found: list[ConceptWords], folder: Path) -> dict[str, int]:
    """Keep the names of all concepts in the stage's folder."""
    write_json(folder / WORDS, [one._asdict() for one in found])
    return {"named": sum(one.origin == "captions" for one in found)}


def read_words(folder: Path) -> list[ConceptWords]:
    """Read what `write_words` kept, by concept."""
    return [ConceptWords(row["label"], row["origin"], tuple(row["words"])) for row in read_json(folder / WORDS)]


def name_concepts(energy: Rows, captions: Sequence[str | None], count: int) -> list[ConceptWords]:
    """Name all concepts.

    Parameters
    ----------
    energy : energies of the real images, `[images, concepts]`.
    captions : of the real images; those without one are left out.
    count : words per concept.
    """
    nameless = [ConceptWords(f"concept {concept}", "number", ()) for concept in range(energy.shape[1])]
    told = np.array([position for position, caption in enumerate(captions) if caption], dtype=np.int64)
    terms = find_terms([caption for caption in captions if caption])
    if not terms.names or not count:
        return nameless
    total = np.asarray(terms.present.sum(axis=0), dtype=np.float64).ravel()
    for first, columns in column_groups(energy):
        by_concept = columns if len(told) == energy.shape[0] else columns[told]
        for at in range(by_concept.shape[1]):
            strong = strongest_images(by_concept[:, [at]])
            if len(strong):
                inside = np.asarray(terms.present[strong].sum(axis=0), dtype=np.float64).ravel()
                concept = first + at
                nameless[concept] = name_concept(inside, total, terms.names, count) or nameless[concept]
    return nameless


def strongest_images(energies: sparse.csc_matrix) -> np.ndarray:
    """Positions of the images in which a concept is strong; `energies` is its column `[images, 1]`."""
    return energies.indices[energies.data >= strong_from(energies.data)]


def name_concept(inside: np.ndarray, total: np.ndarray, names: Sequence[str], count: int) -> ConceptWords | None:
    """Name one concept from the captions that have each term, among the strong images and among all, `[terms]` each."""
    present = np.flatnonzero(inside)
    # The prior weighs as much as the captions inside.
    z = weighted_log_odds(inside, total - inside, total * (inside.sum() / total.sum()))[present]
    favour = np.array([FAVOUR_PAIRS if " " in names[int(term)] else 1.0 for term in present])
    chosen: list[tuple[str, float]] = []
    for at in np.argsort(-z * favour, kind="stable"):
        name = names[int(present[at])]
        if z[at] < SIGNIFICANT or len(chosen) == count:
            break
        if not any(_overlap(name, other) for other, _ in chosen):
            chosen.append((name, float(z[at])))
    if not chosen:
        return None
    label = chosen[0][0]
    if len(chosen) > 1 and chosen[1][1] >= SECOND * chosen[0][1]:
        label += f", {chosen[1][0]}"
    return ConceptWords(label, "captions", tuple(name for name, _ in chosen))


def _overlap(one: str, other: str) -> bool:
    if re.match(UNSPACED, one) and re.match(UNSPACED, other):
        return not set(pairwise(one)).isdisjoint(pairwise(other))
    return not set(one.split()).isdisjoint(other.split())


def find_terms(captions: Sequence[str]) -> Terms:
    """The words and word pairs of captions, without those that only one caption has."""
    # By their hashes: the terms of a million captions, most of which only one has, would fill the memory.
    once, twice, found = bytearray(SEEN), {}, []
    for caption in captions:
        terms = caption_terms(caption)
        found.append(np.fromiter(map(hash, terms), np.int64, len(terms)))
        for term in terms:
            place = hash(term) % SEEN
            if once[place]:
                twice[hash(term)] = term
            once[place] = 1
    indptr = np.cumsum([0, *map(len, found)])
    hashes = np.concatenate(found) if found else np.zeros(0, np.int64)
    del found
    kinds, column, count = np.unique(hashes, return_inverse=True, return_counts=True)
    common = sorted((twice[int(kinds[at])], at) for at in np.flatnonzero(count >= 2))
    place_of = np.full(len(kinds), -1, np.int32)
    place_of[[at for _, at in common]] = np.arange(len(common), dtype=np.int32)
    indices = place_of[column]
    indptr = np.concatenate([[0], np.cumsum(indices >= 0)])[indptr]
    indices = indices[indices >= 0]
    present = sparse.csr_matrix((np.ones(len(indices), np.float32), indices, indptr), (len(captions), len(common)))
    present.sort_indices()
    return Terms([name for name, _ in common], present)


def caption_terms(caption: str) -> set[str]:
    """The words of a caption and its pairs of neighbouring words, in lower case, without stop words.

    Scripts without spaces (Han, Kana, Thai, Lao, Khmer, Burmese) give pairs and triples of neighbouring characters,
    each with its marks.
    """
    terms = set()
    for phrase in re.split(rf"[^\w\s'’\-{MARKS}]+", normalize("NFC", caption).lower()):
        words = [
            piece for word in re.findall(WORD, phrase) for piece in re.findall(f"{UNSPACED}+|[^{UNSPACED[1:]}+", word)
        ]
        kept: list[str | None] = []
        for word in words:
            if re.match(UNSPACED, word):
                signs = re.findall(rf"[{LEADING}]?[^{MARKS}][{MARKS}{TRAILING}]*", word)
                if not signs:  # a mark alone, of the letter of another script before it
                    continue
                sizes = (2, 3) if len(signs) > 1 else (1,)
                terms |= {"".join(signs[at : at + size]) for size in sizes for at in range(len(signs) - size + 1)}
                kept.append(None)
            else:
                kept.append(word if word not in STOPWORDS and len(word) > 1 else None)
        terms |= {word for word in kept if word}
        terms |= {f"{one} {other}" for one, other in pairwise(kept) if one and other}
    return terms
