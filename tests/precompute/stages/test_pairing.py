"""Pairs are found by name or by caption, and a demand that cannot be met says what does not match."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import BlindspotError
from precompute.stages.corpus import ImageRecord, SkippedImage
from precompute.stages.pairing import pair


def pictures(*named: tuple[str, str | None]) -> list[ImageRecord]:
    return [ImageRecord(Path(stem), stem, stem, caption, 8, 8, "") for stem, caption in named]


REAL = pictures(("a", "cat"), ("b", "dog"), ("c", "cow"))


def test_file_names_pair_first():
    found = pair(REAL, pictures(("c", None), ("a", None), ("x", None)), "auto", "m")
    assert found.kind == "stem" and found.pair_index.tolist() == [2, 0, -1]


def test_captions_pair_when_names_do_not():
    found = pair(REAL, pictures(("1", "dog"), ("2", "cat")), "auto", "m")
    assert found.kind == "caption" and found.pair_index.tolist() == [1, 0]


def test_names_that_captions_contradict_do_not_pair():
    found = pair(REAL, pictures(("a", "dog"), ("b", "cow"), ("c", "cat")), "auto", "m")
    assert found.kind == "caption" and found.pair_index.tolist() == [1, 2, 0]


def test_a_caption_that_two_images_share_pairs_neither():
    found = pair(pictures(("a", "cat"), ("b", "cat"), ("c", "cow")), pictures(("1", "cat"), ("2", "cow")), "auto", "m")
    assert found.pair_index.tolist() == [-1, 2]


def test_nothing_in_common_is_unpaired():
    found = pair(REAL, pictures(("x", None), ("y", "bird")), "auto", "m")
    assert found.kind == "none" and found.pair_index.tolist() == [-1, -1]


def test_none_does_not_try():
    assert pair(REAL, REAL, "none", "m").pair_index.tolist() == [-1, -1, -1]


@pytest.mark.parametrize(("how", "word"), [("stem", "file name"), ("caption", "caption")])
def test_a_demand_that_is_not_met_gives_counts_and_an_example(how: str, word: str):
    with pytest.raises(BlindspotError) as caught:
        pair(REAL, pictures(("a", "cat"), ("x", "bird")), how, "mine")
    assert str(caught.value) == (
        f"models.mine is to be paired by {word}, but 1 of its 2 images have no single counterpart among the 3 real "
        f"ones (for example '{'x' if how == 'stem' else 'bird'}'); rename them, or set "
        "models.mine.pairing to auto or none."
    )


def test_the_partner_of_a_skipped_image_is_no_mismatch():
    found = pair(REAL, pictures(("a", None), ("x", None)), "stem", "m", [SkippedImage("x.jpg", "x", "damaged")])
    assert found.pair_index.tolist() == [0, -1]
