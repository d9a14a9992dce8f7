"""Concepts are named by what the captions of their images say more often than others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy import sparse

from precompute.stages.words import caption_terms, name_concepts, read_words, write_words

CAPTIONS = [f"a {colour} {thing} on grass" for thing in ("palm tree", "cup", "fish") for colour in ("red", "blue")] * 20


def energy_where(*tests) -> sparse.csr_matrix:
    return sparse.csr_matrix(np.array([[float(test(caption)) for test in tests] for caption in CAPTIONS]))


def test_a_thing_and_a_colour_are_named():
    energy = energy_where(lambda text: "cup" in text, lambda text: "red" in text)
    cup, red = name_concepts(energy, CAPTIONS, 5)
    assert cup.words[0] == "cup" and cup.label == "cup" and cup.origin == "captions"
    assert red.words[0] == "red"


def test_a_pair_of_words_is_one_name():
    (tree,) = name_concepts(energy_where(lambda text: "palm" in text), CAPTIONS, 5)
    assert tree.label == "palm tree" and "palm" not in tree.words and "tree" not in tree.words


def test_what_all_captions_say_names_nothing():
    (everywhere, nowhere) = name_concepts(energy_where(lambda text: True, lambda text: False), CAPTIONS, 5)
    assert "grass" not in everywhere.words
    assert nowhere == ("concept 1", "number", ())


def test_images_without_captions_have_no_say():
    captions = [caption if number % 2 else None for number, caption in enumerate(CAPTIONS)]
    (cup,) = name_concepts(energy_where(lambda text: "cup" in text), captions, 5)
    assert "cup" in cup.words[0]
    assert name_concepts(sparse.csr_matrix((3, 2)), [None] * 3, 5)[1].label == "concept 1"


def test_terms_leave_out_fillers_and_do_not_cross_commas():
    terms = caption_terms("A red star, a palm-tree and the cook's pan")
    assert terms == {"red", "star", "red star", "palm-tree", "cook's", "pan", "cook's pan"}


def test_words_come_back_from_disk(tmp_path: Path):
    energy = energy_where(lambda text: "fish" in text)
    found = name_concepts(energy, CAPTIONS, 3)
    assert write_words(found, tmp_path) == {"named": 1}
    assert read_words(tmp_path) == found
