"""The demo world is reproducible, says what it shows, and shows what it says."""

from __future__ import annotations

import json
from itertools import combinations

import numpy as np
import pytest

from precompute.demo_world.scenes import (
    BACKGROUNDS,
    COLOURS,
    KINDS,
    PLACES,
    Scene,
    Thing,
    corpus,
    draw,
    masks,
    sample_scene,
)

SCENES = corpus(200, seed=3)


def test_drawing_is_deterministic_and_of_the_asked_size():
    for scene in SCENES[:5]:
        picture = draw(scene)
        assert picture.shape == (64, 64, 3) and picture.dtype == np.uint8
        assert np.array_equal(picture, draw(scene))
    assert draw(SCENES[0], size=96).shape == (96, 96, 3)


def test_a_longer_corpus_begins_with_the_shorter_one():
    assert corpus(20, seed=3) == SCENES[:20]
    assert corpus(20, seed=4) != SCENES[:20]


def test_scenes_survive_json():
    for scene in SCENES[:20]:
        assert Scene.from_dict(json.loads(json.dumps(scene.to_dict()))) == scene


def test_caption_lists_things_from_left_to_right():
    things = (Thing("car", "blue", 0.8, 0.5, 0.3), Thing("apple", "orange", 0.2, 0.5, 0.3))
    assert Scene("wooden table", things, 0).caption == "an orange apple and a blue car on a wooden table"
    third = Thing("palm tree", "red", 0.5, 0.5, 0.2)
    caption = Scene("sky", (*things, third), 0).caption
    assert caption == "an orange apple, a red palm tree and a blue car in the sky"


def test_caption_names_every_thing_and_the_background():
    for scene in SCENES:
        assert all(f"{thing.colour} {thing.kind}" in scene.caption for thing in scene.things)
        assert scene.caption.endswith(PLACES[scene.background])


def test_things_lie_inside_the_image_and_do_not_overlap():
    for scene in corpus(100, seed=5, counts=(0.1, 0.2, 0.3, 0.4)):
        for thing in scene.things:
            assert thing.size / 2 <= min(thing.x, thing.y, 1 - thing.x, 1 - thing.y)
        for one, other in combinations(scene.things, 2):
            assert max(abs(one.x - other.x), abs(one.y - other.y)) >= (one.size + other.size) / 2 - 1e-3


def test_every_kind_colour_background_and_count_is_reached():
    things = [thing for scene in SCENES for thing in scene.things]
    assert {thing.kind for thing in things} == set(KINDS)
    assert {thing.colour for thing in things} == set(COLOURS)
    assert {scene.background for scene in SCENES} == set(BACKGROUNDS)
    assert {len(scene.things) for scene in SCENES} == {1, 2, 3}


def test_choices_and_weights_are_respected():
    scenes = corpus(50, seed=0, kinds=("disc",), backgrounds=("sky", "paper"), background_weights=(0, 1), counts=(0, 1))
    assert {scene.background for scene in scenes} == {"paper"}
    assert {thing.kind for scene in scenes for thing in scene.things} == {"disc"}
    assert {len(scene.things) for scene in scenes} == {2}
    by_name = corpus(10, seed=0, background_weights={"grass": 1.0})
    assert {scene.background for scene in by_name} == {"grass"}


def test_too_many_things_are_refused():
    with pytest.raises(ValueError, match="1 to 4 things"):
        sample_scene(np.random.default_rng(0), counts=(0, 0, 0, 0, 1))


@pytest.mark.parametrize("kind", KINDS)
def test_mask_covers_exactly_where_the_thing_is_painted(kind: str):
    thing = Thing(kind, "purple", 0.4, 0.4, 0.5)
    (cover,) = masks(Scene("paper", (thing,), 1))
    on_paper, on_sky = (draw(Scene(place, (thing,), 1)).astype(int) for place in ("paper", "sky"))
    empty = draw(Scene("paper", (), 1)).astype(int)
    assert np.abs(on_paper - on_sky)[cover == 1].max() == 0, "an opaque pixel does not depend on the background"
    brighter = (on_paper > empty + 1).any(axis=-1)
    assert not brighter[cover == 0].any(), "outside the thing there is nothing but shadow"
    assert (np.abs(on_paper - empty).max(axis=-1) > 8)[cover == 1].mean() > 0.95
    assert 0.15 < cover.sum() / (0.5 * 64) ** 2 < 0.95


def test_each_thing_has_its_own_mask():
    for scene in SCENES[:30]:
        covers = masks(scene)
        assert covers.shape == (len(scene.things), 64, 64) and covers.dtype == np.float32
        assert covers.sum(axis=0).max() <= 1 + 1e-5
        for thing, cover in zip(scene.things, covers, strict=True):
            rows, columns = np.nonzero(cover > 0.5)
            assert abs(rows.mean() / 64 - thing.y) < 0.1 and abs(columns.mean() / 64 - thing.x) < 0.1


def test_removing_a_thing_leaves_the_others_as_they_are():
    left, right = Thing("fish", "red", 0.25, 0.5, 0.34), Thing("cup", "blue", 0.75, 0.5, 0.34)
    both, alone = masks(Scene("grass", (left, right), 9)), masks(Scene("grass", (right,), 9))
    assert np.array_equal(both[1], alone[0])


def test_silhouettes_of_different_kinds_differ():
    poses = [Thing(kind, "red", 0.5, 0.5, 0.6) for kind in KINDS]
    outlines = [masks(Scene("paper", (thing,), 2))[0] > 0.5 for thing in poses]
    for one, other in combinations(outlines, 2):
        assert (one & other).sum() / (one | other).sum() < 0.95
