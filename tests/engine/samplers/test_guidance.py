import pytest
import torch

from engine.errors import BlindspotError
from engine.priors.loading import load_prior
from engine.samplers.base import require_finite, sample_generators
from engine.samplers.guidance import GuidedDenoiser, checkpointed
from tests.engine.priors.tiny import tiny_pipeline


def redness(images):
    return (images[:, 0] - images[:, 1:].mean(dim=1)).square().mean(dim=(1, 2))


@pytest.fixture(scope="module")
def prior(tmp_path_factory):
    return load_prior(tiny_pipeline(tmp_path_factory.mktemp("prior") / "base"))


@pytest.fixture
def state(prior):
    return prior.noise(sample_generators(0, 2))


def saved_bytes(observer, state):
    """Bytes of the distinct tensors that autograd keeps for the way back."""
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr(), tensor.shape] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        observer.evaluate(state, 500, guided=True)
    return sum(tensor.numel() * tensor.element_size() for tensor in kept.values())


@pytest.mark.parametrize("guidance", ["full", "light"])
def test_the_gradient_is_that_of_finite_differences(prior, state, guidance):
    seen = GuidedDenoiser(prior, redness, guidance).evaluate(state, 500, guided=True)
    direction = torch.randn(state.shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        start = state if guidance == "full" else seen.prediction.x0

        def score(moved):
            return redness(prior.decode(prior.denoise(moved, 500).x0 if guidance == "full" else moved))

        slope = (score(start + 2e-3 * direction) - score(start - 2e-3 * direction)) / 4e-3
    torch.testing.assert_close((seen.gradient * direction).sum(dim=(1, 2, 3)), slope, rtol=0.1, atol=1e-4)


def test_an_unguided_look_has_no_gradient_and_no_graph(prior, state):
    seen = GuidedDenoiser(prior, redness).evaluate(state, 500, guided=False)
    assert seen.gradient is None and not seen.scores.requires_grad and not seen.prediction.x0.requires_grad
    assert GuidedDenoiser(prior, redness).evaluate(state, 500, guided=True).prediction.x0.requires_grad is False


def test_checkpointing_keeps_less_changes_nothing_and_leaves_no_trace(prior, state):
    plain, thrifty = GuidedDenoiser(prior, redness), GuidedDenoiser(prior, redness, checkpointing=True)
    torch.testing.assert_close(plain.evaluate(state, 500, True).gradient, thrifty.evaluate(state, 500, True).gradient)
    assert saved_bytes(thrifty, state) < 0.7 * saved_bytes(plain, state)
    with checkpointed(prior, True):
        assert prior.unet.is_gradient_checkpointing and prior.vae.is_gradient_checkpointing
    assert not prior.unet.is_gradient_checkpointing and not prior.vae.is_gradient_checkpointing


def test_light_keeps_less_than_full(prior, state):
    assert saved_bytes(GuidedDenoiser(prior, redness, "light"), state) < saved_bytes(
        GuidedDenoiser(prior, redness), state
    )


def test_bf16_is_near_and_answers_in_float32(prior, state):
    exact = GuidedDenoiser(prior, redness).evaluate(state, 500, True)
    rough = GuidedDenoiser(prior, redness, bf16=True).evaluate(state, 500, True)
    assert rough.gradient.dtype == rough.scores.dtype == rough.prediction.x0.dtype == torch.float32
    assert not torch.equal(rough.scores, exact.scores)
    torch.testing.assert_close(rough.scores, exact.scores, rtol=0.1, atol=0.01)
    aligned = torch.nn.functional.cosine_similarity(rough.gradient.flatten(1), exact.gradient.flatten(1))
    assert (aligned > 0.9).all()


def test_the_end_is_in_full_precision(prior, state):
    images, scores = GuidedDenoiser(prior, redness, bf16=True).decode(state)
    with torch.no_grad():
        alone = torch.cat([prior.decode(row) for row in state.split(1)])
        assert torch.equal(images, alone) and torch.equal(scores, redness(images))


def test_the_first_infinite_sample_is_named():
    states, scores = torch.zeros(3, 1, 1, 1), torch.tensor([0.0, float("nan"), 0.0])
    with pytest.raises(BlindspotError, match=r"^Sample 2 became infinite at step 3: stop here\.$"):
        require_finite(states, scores, "at step 3", "stop here")
