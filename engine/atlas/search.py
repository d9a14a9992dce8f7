"""Finds concepts by what a person types: a number, a label or a word."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

_TERM = re.compile(r"\w+")
_EXACT, _PREFIX, _INSIDE = 1.0, 0.6, 0.3
_LABEL_WEIGHT = 2.0


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

    def _term_scores(self, term: str) -> dict[int, float]:
        best: dict[int, float] = {}
        for known, concepts in self._terms.items():
            if term not in known:
                continue
            fit = _EXACT if known == term else _PREFIX if known.startswith(term) else _INSIDE
            for concept, weight in concepts.items():
                best[concept] = max(best.get(concept, 0.0), fit * weight)
        return best
