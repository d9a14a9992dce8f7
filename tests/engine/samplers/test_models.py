import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from engine.atlas import Atlas
from engine.errors import BlindspotError
from engine.samplers.models import ModelBundle


def test_two_openings_of_an_atlas_share_their_models(atlas, drawable):
    first, second = ModelBundle(atlas, "cpu"), ModelBundle(Atlas.open(drawable), "cpu")
    assert first.encoder is second.encoder and first.dictionary is second.dictionary and first.prior is second.prior


def test_threads_that_ask_at_once_get_the_same_models(atlas):
    with ThreadPoolExecutor(4) as pool:
        priors = list(pool.map(lambda _: ModelBundle(atlas, "cpu").prior, range(4)))
    assert len({id(prior) for prior in priors}) == 1


def test_the_encoder_is_the_one_that_the_atlas_describes(atlas):
    spec = ModelBundle(atlas, "cpu").encoder.spec
    assert (spec.image_size, spec.grid, spec.prefix_tokens, spec.dim) == (32, (4, 4), 3, 16)


def test_a_dictionary_that_changed_on_disk_is_read_anew(atlas, drawable):
    models = ModelBundle(atlas, "cpu")
    before = models.dictionary
    os.utime(drawable / "dictionary" / "config.json")
    assert models.dictionary is not before


def test_an_atlas_without_a_prior_says_what_to_do(atlas):
    atlas.info = replace(atlas.info, prior=None)
    with pytest.raises(BlindspotError, match="names no diffusion prior to draw with: set `prior` in its recipe"):
        ModelBundle(atlas, "cpu").load()
