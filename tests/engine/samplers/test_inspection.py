"""What an atlas sees in an image: the same whether it is one of its own or brought from elsewhere."""

import numpy as np
import pytest
from PIL import Image

from engine.atlas import Atlas
from engine.errors import BlindspotError
from engine.samplers.inspection import foreign_image, heat_map, how_alike, leading_concepts, stored_image
from tests.test_demo import DEMO

IMAGE = 13
"""An orange flower and a black car in the sky."""


@pytest.fixture(scope="module")
def demo():
    return Atlas.open(DEMO / "atlas")


@pytest.fixture(scope="module")
def stored(demo):
    return stored_image(demo, IMAGE)


def test_the_codes_of_a_stored_image_are_those_of_its_heat_maps(demo, stored):
    for concept in leading_concepts(demo, stored.codes, 4).concepts:
        np.testing.assert_array_equal(heat_map(demo, stored.codes, concept), demo.heatmap(IMAGE, concept))
    with pytest.raises(BlindspotError, match="no image"):
        stored_image(demo, demo.info.images)


def test_an_image_of_the_atlas_is_recognised_when_it_is_brought_from_elsewhere(demo, stored):
    found = foreign_image(demo, demo.image(IMAGE), "cpu")
    here, there = (np.asarray(one.codes.sum(axis=0)).ravel() for one in (stored, found))
    assert here @ there / (np.linalg.norm(here) * np.linalg.norm(there)) > 0.98
    nearest = demo.nearest_images(found.embedding, "real", 1).iloc[0]
    assert nearest["image"] == IMAGE and nearest["similarity"] > 0.99


def test_leading_concepts_are_live_one_of_each_name_first(demo, stored):
    every = leading_concepts(demo, stored.codes, 10_000)
    labels = demo.concepts["label"].to_numpy()[every.concepts].tolist()
    named = [label for label in labels if label]
    first = len(set(named))
    assert len(set(named[:first])) == first and {"car", "sky"} <= set(named[:8])
    assert every.shares[:first] == sorted(every.shares[:first], reverse=True)
    assert not demo.concepts["dead"].to_numpy()[every.concepts].any() and min(every.scores) > 0
    best = demo.exemplars("real", every.concepts[0], 8)["score"].mean()
    assert every.shares[0] == pytest.approx(every.scores[0] / best)


def test_an_image_of_another_world_is_said_to_be_unlike(demo):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    found = how_alike(demo, foreign_image(demo, noise, "cpu").embedding)
    assert found.similarity < found.usual
    own = [how_alike(demo, image) for image in range(0, 500, 25)]
    assert np.mean([one.similarity >= one.usual for one in own]) > 0.9


def test_an_image_is_looked_at_first_and_a_concept_drawn_then(drawable):
    from engine.samplers import models
    from engine.samplers.generation import GenerationRequest, generate_images
    from engine.stress.images import energies_of

    atlas = Atlas.open(drawable)

    def bring() -> None:
        """Its header's grid is not that of its encoder, which is loaded and looks before that is found."""
        with pytest.raises(BlindspotError, match=r"gives 4 × 4 patches, and atlas .* was made with 8 × 8"):
            foreign_image(atlas, atlas.image(0), "cpu")

    for look in (
        bring,
        lambda: energies_of(models.ModelBundle(atlas, "cpu"), [atlas.image(0)]),
    ):
        models._encoder.cache_clear()
        models._dictionary.cache_clear()
        look()
        drawn = generate_images(atlas, GenerationRequest(3, "energydps", count=1, steps=3), "cpu")
        assert len(drawn.samples.images) == 1
