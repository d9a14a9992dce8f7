"""Every target is a differentiable function of images, row by row, equal to what it is named after."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import AutoImageProcessor, AutoModelForImageClassification

from engine.errors import BlindspotError
from engine.invariance.classifier import Classifier
from engine.invariance.parsing import FORMS, parse_target
from engine.invariance.targets import CodeTarget, FunctionTarget, NeuronTarget, image_codes
from engine.samplers.scores import ConceptScore
from engine.vision.preprocess import load_image


def active_concept(models, images, token=5):
    """A concept that is active at a token of the first image."""
    patches = models.encoder(images[:1]).patches.flatten(0, 2)
    return int(models.dictionary.encode(patches).indices[token, 0])


def test_every_written_target_is_differentiable_row_by_row(models, resnet, images):
    one, two = 4, 9
    texts = {
        f"concept:{one}": 1,
        f"concept:{one},{two}": 2,
        f"code:{one}@12": 1,
        "codes": None,
        "neuron:encoder.layer.0.mlp:7": 1,
        f"neuron:{resnet}:resnet.pooler:11": 1,
        f"logit:{resnet}:zebra": 1,
        f"probability:{resnet}:2": 1,
        f"logits:{resnet}": 5,
    }
    assert {text.partition(":")[0] for text in texts} == set(FORMS)
    for text, outputs in texts.items():
        target = parse_target(text).build(models, images[:1])
        variable = images.clone().requires_grad_()
        responses = target(variable)
        assert responses.shape == (3, outputs or target.outputs) and responses.dtype == torch.float32, text
        (gradient,) = torch.autograd.grad(responses[1].square().sum(), variable)
        assert gradient[1].abs().sum() > 0 and gradient[[0, 2]].abs().sum() == 0, text
        torch.testing.assert_close(target(images[1:2])[0], responses[1].detach(), rtol=1e-4, atol=1e-5)


def test_concepts_respond_with_their_intrinsic_scores(models, images):
    one, two = 4, 9
    target = parse_target(f"concept:{one},{two}").build(models)
    for column, concept in enumerate((one, two)):
        expected = ConceptScore(models.encoder, models.dictionary, [concept])(images)
        torch.testing.assert_close(target(images)[:, column], expected)
    torch.testing.assert_close(target.target_of(images[1]), target(images)[1].detach())


def test_a_code_is_the_code_wherever_the_concept_is_active(models, images):
    concept = active_concept(models, images)
    target = CodeTarget(models.encoder, models.dictionary, concept, 5)
    codes = models.dictionary.encode(models.encoder(images).patches.flatten(0, 2))
    at_token = (codes.values * (codes.indices == concept)).sum(dim=1).view(3, -1)[:, 5]
    active = target.active(images)
    assert active[0] and torch.equal(active, at_token > 0)
    torch.testing.assert_close(target(images)[active, 0], at_token[active])
    torch.testing.assert_close(target.target_of(images[0]), at_token[:1])


def test_a_code_needs_its_concept_in_the_query(models, images):
    codes = models.dictionary.encode(models.encoder(images[:1]).patches.flatten(0, 2))
    absent = next(concept for concept in range(24) if concept not in codes.indices[5])
    with pytest.raises(BlindspotError, match=f"Concept {absent} at token 5 is not active in the query"):
        CodeTarget(models.encoder, models.dictionary, absent, 5).target_of(images[0])


def test_codes_are_those_active_in_the_query_or_all(models, images):
    whole = image_codes(models.encoder, models.dictionary, images)
    sparse = models.dictionary.encode(models.encoder(images).patches.flatten(0, 2))
    dense = torch.zeros(48, 24).scatter(1, sparse.indices, sparse.values).view(3, 16, 24)
    torch.testing.assert_close(whole, dense.mean(dim=1))
    active = whole[0].nonzero().flatten()
    target = parse_target("codes").build(models, images[:1])
    torch.testing.assert_close(target(images), whole[:, active])
    assert target.names[0] == f"concept {int(active[0])}"
    torch.testing.assert_close(parse_target("codes:all").build(models)(images), whole)


def test_a_neuron_is_read_where_the_forward_pass_computes_it(models, images):
    target = parse_target("neuron:layernorm:4").build(models)
    torch.testing.assert_close(target(images)[:, 0], models.encoder(images).patches[..., 4].mean(dim=(1, 2)))
    assert not models.encoder.backbone.layernorm._forward_hooks
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten())
    torch.testing.assert_close(NeuronTarget(network, "1", 2)(images)[:, 0], network[:2](images)[:, 2].mean(dim=(1, 2)))


def test_a_classifier_sees_images_as_its_authors_prepared_them(resnet, images, tmp_path):
    """Against transformers' own processor, on an image of another size and shape."""
    from PIL import Image

    pixels = (torch.nn.functional.interpolate(images[:1], size=(60, 48))[0] * 255).byte().permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(tmp_path / "image.png")
    picture = load_image(tmp_path / "image.png")
    inputs = AutoImageProcessor.from_pretrained(resnet)(picture, return_tensors="pt")
    with torch.no_grad():
        expected = AutoModelForImageClassification.from_pretrained(resnet).eval()(**inputs).logits
        given = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None] / 255
        classifier = Classifier.from_pretrained(str(resnet))
        found = classifier(given)
    assert (found - expected).norm() < 0.01 * expected.norm()
    assert classifier.labels[0] == "tench, Tinca tinca"
    assert [classifier.class_number(name) for name in ("Zebra", "tinca tinca", "3", 4)] == [1, 0, 3, 4]


def test_a_probability_is_the_softmax_of_the_logits(models, resnet, images):
    logits = parse_target(f"logits:{resnet}").build(models)
    probability = parse_target(f"probability:{resnet}:dome").build(models)
    torch.testing.assert_close(probability(images)[:, 0], logits(images).softmax(dim=1)[:, 3])
    assert str(logits) == "logit of tench, Tinca tinca, logit of zebra, logit of ambulance and 2 more"
    assert probability.names == ("probability of dome",)


def test_any_function_can_be_a_target(images):
    brightness = FunctionTarget(lambda images: images.mean(dim=(1, 2, 3)))
    torch.testing.assert_close(brightness.target_of(images[2:]), images[2].mean()[None])
    assert FunctionTarget(lambda images: images.mean(dim=(2, 3)), ["red", "green", "blue"])(images).shape == (3, 3)
    assert brightness.value([0.25]).tolist() == [0.25]
    with pytest.raises(BlindspotError, match=r"shape \[3, 3\], not \[3, 1\]"):
        FunctionTarget(lambda images: images.mean(dim=(2, 3)))(images)


@pytest.mark.parametrize(
    "function",
    [
        lambda images: images.mean(dim=(1, 2, 3)).detach(),
        lambda images: images.mean(dim=(1, 2, 3)).round(),
        lambda images: (images.mean(dim=(1, 2, 3)) - 9).relu(),
        lambda images: torch.ones(len(images), requires_grad=True),
    ],
)
def test_a_response_without_gradient_is_refused(function, images):
    with pytest.raises(BlindspotError, match="The response response has no gradient at the query"):
        FunctionTarget(function).target_of(images[0])


def test_a_response_that_is_not_finite_is_refused(images):
    with pytest.raises(BlindspotError, match="is not finite: choose another image"):
        FunctionTarget(lambda images: images.mean(dim=(1, 2, 3)) / 0).target_of(images[0])
    with pytest.raises(BlindspotError, match="needs 1 finite numbers"):
        FunctionTarget(len).value([float("nan")])


@pytest.mark.parametrize(
    "text",
    ["", "concept", "concept:", "concept:x", "concept:1,", "concept:-1", "concept:٣", "code:5", "code:5@", "codes:some",
     "codes:", "neuron:layer", "neuron:layer:x", "logit:model", "logits", "logits:", "face:1", ":", "concept:1;2"],
)  # fmt: skip
def test_what_names_no_target_is_refused_with_how_to_write_one(text):
    with pytest.raises(BlindspotError, match="write "):
        parse_target(text)


def test_a_path_may_hold_colons():
    spec = parse_target("neuron:C:/models/resnet:layer.1:7")
    assert (spec.source, spec.layer, spec.channel) == ("C:/models/resnet", "layer.1", 7)
    assert parse_target("neuron:layer.1:7").source is None
    assert parse_target("logit:C:/resnet:sports car").label == "sports car"


def test_what_does_not_exist_is_said_in_a_sentence(models, resnet, images, tmp_path):
    bad = {
        "concept:24": "no concept 24",
        "concept:4,4": "named twice",
        "code:4@16": "no token 16: the encoder has patches 0 to 15",
        "codes": "need a query image",
        "neuron:encoder.layer.9:0": "no module 'encoder.layer.9': name one such as",
        f"neuron:{resnet}:resnet.nothing:0": "no module 'resnet.nothing'",
        f"logit:{resnet}:7": "no class 7: choose 0 to 4 or a name",
        f"logit:{resnet}:unicorn": "no class unicorn",
        f"logits:{tmp_path / 'absent'}": "There is no classifier",
        f"logits:{tmp_path}": "has no config.json",
        "logits:nobody/nothing": "use --allow-download",
    }
    for text, message in bad.items():
        with pytest.raises(BlindspotError, match=message):
            parse_target(text).build(models)
    with pytest.raises(BlindspotError, match="no neuron 99 of layernorm: it has channels 0 to 15"):
        parse_target("neuron:layernorm:99").build(models)(images)


def test_a_dead_concept_is_refused(models):
    concepts = models.atlas.concepts
    concepts.loc[9, "dead"] = True
    bundle = SimpleNamespace(
        encoder=models.encoder, dictionary=models.dictionary, device="cpu", atlas=SimpleNamespace(concepts=concepts)
    )
    assert parse_target("concept:4").build(bundle).names == ("concept 4",)
    for text in ("concept:4,9", "code:9@0"):
        with pytest.raises(BlindspotError, match="Concept 9 is dead, no image excites it"):
            parse_target(text).build(bundle)


def test_a_backbone_without_a_trained_head_is_refused(models):
    folder = models.atlas.path.parent / "encoder"
    with pytest.raises(BlindspotError, match=r"has no trained classifier\.bias: choose one that was trained"):
        Classifier.from_pretrained(str(folder))
