"""Words of scripts with marks, and of scripts without spaces, are words and not letters."""

from __future__ import annotations

from unicodedata import category, normalize

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from precompute.stages.words import caption_terms, name_concepts


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("एक कुत्ता और बिल्ली", {"कुत्ता", "बिल्ली"}),
        ("ஒரு நாய் மற்றும் பூனை", {"நாய்", "பூனை"}),
        ("כֶּלֶב גָּדוֹל", {"כֶּלֶב", "גָּדוֹל"}),
        ("cafe\u0301 cre\u0300me", {"café", "crème"}),
        ("两只猫坐在沙发上", {"沙发", "两只猫"}),
        ("สุนัขและแมว", {"แมว", "สุนัข"}),
        ("ソファの上の猫", {"ソファ"}),
        ("狗", {"狗"}),
        ("a red 猫咪 toy", {"red", "猫咪", "toy"}),
    ],
)
def test_words_are_whole(caption: str, words: set[str]) -> None:
    assert words <= caption_terms(caption)


@pytest.mark.parametrize(
    ("dog", "cat", "names"),
    [
        ("पार्क में एक कुत्ता", "सोफे पर एक बिल्ली", ("कुत्ता", "बिल्ली")),
        ("பூங்காவில் நாய்", "சோபாவில் பூனை", ("நாய்", "பூனை")),
        ("公园里的狗", "沙发上的猫", ("公园", "上的")),
    ],
)
def test_concepts_are_named_by_words(dog: str, cat: str, names: tuple[str, str]) -> None:
    energy = np.zeros((40, 2))
    energy[:20, 0] = energy[20:, 1] = 5
    found = name_concepts(sparse.csr_matrix(energy), [dog] * 20 + [cat] * 20, 3)
    assert all(name in one.label for name, one in zip(names, found, strict=True))


@given(st.text())
def test_a_term_never_begins_with_a_mark_and_is_the_same_in_every_form(caption: str) -> None:
    terms = caption_terms(caption)
    assert terms == caption_terms(normalize("NFD", caption)) or normalize("NFC", caption.lower()) != normalize(
        "NFC", normalize("NFD", caption).lower()
    )
    assert not any(category(word[0]).startswith("M") for term in terms for word in term.split())
