import pandas as pd
import pytest
import torch

from engine.errors import BlindspotError
from engine.samplers.instruments import Instruments
from engine.samplers.retrieval import Retrieval
from engine.samplers.score import ConceptScore

CONCEPT = 2


@pytest.fixture
def score(atlas):
    models = Instruments(atlas, "cpu")
    return ConceptScore(models.encoder, models.dictionary, [CONCEPT])


def test_it_returns_the_atlas_s_exemplars_with_their_scores(atlas, score):
    events = []
    samples = Retrieval(atlas).sample(score, 3, on_step=events.append)
    expected = atlas.exemplars("real", CONCEPT, count=3)["image"].tolist()
    assert Retrieval(atlas).exemplars(CONCEPT, 3) == expected
    assert samples.images.shape == (len(expected), 3, 32, 32)
    torch.testing.assert_close(samples.scores, score(samples.images))
    assert [(event.step, event.steps) for event in events] == [(1, 1)]


def test_a_concept_that_no_real_image_has_is_one_sentence(atlas, score):
    class Empty:
        info = atlas.info

        def exemplars(self, source, concept, count):
            return pd.DataFrame({"image": []})

    with pytest.raises(BlindspotError, match="No real image of atlas 'synthetic' excites concept 2: draw it instead"):
        Retrieval(Empty()).sample(score, 3)
