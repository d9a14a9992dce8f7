import pytest
import torch
import torch.nn.functional as F

from engine.dictionary.topk import TopK
from engine.errors import BlindspotError
from engine.samplers.scores import ConceptScore, NeuronScore
from engine.vision.encoder import Tokens


def colours(images):
    """An encoder whose patch tokens are the mean colours of a 4 x 4 grid, with one prefix token that must not count."""
    patches = F.adaptive_avg_pool2d(images, 4).permute(0, 2, 3, 1)
    return Tokens(patches, torch.full((len(images), 1, 3), 1e6))


@pytest.fixture
def dictionary():
    """Concepts 0, 1, 2 read red, green and blue minus a half; one of them fires per patch."""
    dictionary = TopK(dim=3, concepts=3, sparsity=1).requires_grad_(False)
    dictionary.encoder.weight.copy_(torch.eye(3))
    dictionary.encoder.bias.fill_(-0.5)
    return dictionary


def corner(red=1.0, green=0.0):
    """A black image with one of its sixteen patches coloured."""
    image = torch.zeros(1, 3, 8, 8)
    image[:, 0, :2, :2] = red
    image[:, 1, :2, :2] = green
    return image


def test_the_score_mixes_the_peak_and_the_rectified_mean(dictionary):
    score = ConceptScore(colours, dictionary, [0])
    assert score(corner()).item() == pytest.approx(0.3 * 0.5 + 0.7 * 0.5 / 16)
    assert score(torch.zeros(1, 3, 8, 8)).item() == pytest.approx(0.3 * -0.5)
    assert score(torch.ones(1, 3, 8, 8)).item() == pytest.approx(0.5)


def test_a_gradient_exists_before_the_concept_fires(dictionary):
    image = torch.zeros(1, 3, 8, 8, requires_grad=True)
    (gradient,) = torch.autograd.grad(ConceptScore(colours, dictionary, [0])(image).sum(), image)
    assert gradient[:, 0].sum() > 0 and gradient[:, 1:].abs().sum() == 0


def test_several_concepts_add_up_with_their_weights(dictionary):
    images = torch.cat([corner(1.0, 0.7), corner(0.6, 0.9)])
    red, green = (ConceptScore(colours, dictionary, [concept])(images) for concept in (0, 1))
    both = ConceptScore(colours, dictionary, [0, 1], weights=[2.0, -1.0])(images)
    torch.testing.assert_close(both, 2 * red - green)


def test_the_codes_score_ignores_a_concept_that_lost_the_top_k(dictionary):
    score = ConceptScore(colours, dictionary, [1])
    assert score(corner(1.0, 0.9)).item() > 0
    assert score.codes_score(corner(1.0, 0.9)).item() == 0
    assert score.codes_score(corner(0.9, 1.0)).item() == pytest.approx(0.3 * 0.5 + 0.7 * 0.5 / 16)


def test_maps_follow_the_patch_grid(dictionary):
    maps = ConceptScore(colours, dictionary, [0, 2]).maps(corner())
    assert maps.shape == (1, 4, 4, 2)
    assert maps[0, 0, 0].tolist() == [0.5, -0.5] and (maps[0, 1:] == -0.5).all()


@pytest.mark.parametrize(("concepts", "message"), [([3], "no concept 3: choose from 0 to 2"), ([-1], "no concept -1")])
def test_a_concept_outside_the_dictionary_is_refused(dictionary, concepts, message):
    with pytest.raises(BlindspotError, match=message):
        ConceptScore(colours, dictionary, concepts)


def test_weights_must_match_concepts(dictionary):
    with pytest.raises(BlindspotError, match="2 concepts need as many weights, not 1"):
        ConceptScore(colours, dictionary, [0, 1], weights=[1.0])


def test_a_neuron_s_score_is_that_of_its_channel(dictionary):
    """The toy's channels are the colours, its concepts the same less a half."""
    images = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0)) / 2 + 0.5
    neuron, concept = NeuronScore(colours, 1)(images), ConceptScore(colours, dictionary, [1])(images)
    torch.testing.assert_close(neuron, concept + 0.5)
    assert NeuronScore(colours, 0)(corner()).item() == pytest.approx(0.3 + 0.7 / 16)


def test_an_inhibited_neuron_is_scored_by_its_negative():
    assert NeuronScore(lambda images: colours(-images), 0, sign=-1)(corner()).item() == pytest.approx(0.3 + 0.7 / 16)


@pytest.mark.parametrize("neuron", [-1, 3])
def test_a_neuron_outside_the_encoder_is_refused(neuron):
    with pytest.raises(BlindspotError, match=f"no neuron {neuron}: choose from 0 to 2"):
        NeuronScore(colours, neuron)(corner())
