"""The ADM network against guided-diffusion's, that one against formulas, and the prior against the textbook."""

import math
from dataclasses import replace

import pytest
import torch

from engine.errors import BlindspotError
from engine.priors.adm import ADMConfig, ADMPrior, empty_adm, tensor_places
from tests.engine.priors.adm_reference import SelfAttention, split_heads, time_embedding
from tests.engine.priors.tiny import TINY_ADM, tiny_adm, tiny_adm_unet

PUBLISHED = {
    "256x256_diffusion_uncond": (ADMConfig(), 552_814_086),
    "256x256_diffusion": (ADMConfig(classes=1000), 553_838_086),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_networks_have_their_parameters(name):
    config, expected = PUBLISHED[name]
    unet = empty_adm(config)
    assert all(parameter.is_meta for parameter in unet.parameters())
    assert sum(parameter.numel() for parameter in unet.parameters()) == expected


def test_tensors_are_named_as_in_the_published_checkpoint():
    state = {name: place.shape for name, place in tensor_places(ADMConfig(), empty_adm(ADMConfig())).items()}
    assert len(state) == 566
    assert state["time_embed.2.weight"] == (1024, 1024)
    assert state["input_blocks.0.0.weight"] == (256, 3, 3, 3)
    assert state["input_blocks.3.0.in_layers.2.weight"] == (256, 256, 3, 3)
    assert state["input_blocks.7.0.skip_connection.weight"] == (512, 256, 1, 1)
    assert "input_blocks.8.1.qkv.weight" not in state and "input_blocks.12.1.qkv.weight" not in state
    assert state["input_blocks.10.1.qkv.weight"] == (1536, 512, 1)
    assert state["input_blocks.17.1.proj_out.weight"] == (1024, 1024, 1)
    assert state["middle_block.1.norm.bias"] == (1024,)
    assert state["output_blocks.2.2.out_layers.3.weight"] == (1024, 1024, 3, 3)
    assert state["output_blocks.11.1.in_layers.0.weight"] == (512,)
    assert state["output_blocks.17.0.emb_layers.1.weight"] == (512, 1024)
    assert state["out.2.weight"] == (6, 256, 3, 3)


def attention_by_formula(block, x):
    """softmax(q k^T / sqrt(c)) v, one sample, head and position at a time, channels picked as defined."""
    batch, channels, height, width = x.shape
    size = channels // block.heads
    rows = block.norm(x).reshape(batch, channels, -1)
    qkv = torch.einsum("oi,bin->bon", block.qkv.weight[:, :, 0], rows) + block.qkv.bias[:, None]
    attended = torch.zeros_like(rows)
    for head in range(block.heads):
        starts = (
            [3 * size * head + part * size for part in range(3)]
            if block.order == "legacy"
            else [part * channels + head * size for part in range(3)]
        )
        q, k, v = (qkv[:, start : start + size] for start in starts)
        for sample in range(batch):
            for position in range(height * width):
                logits = torch.stack(
                    [q[sample, :, position] @ k[sample, :, other] for other in range(height * width)]
                ) / math.sqrt(size)
                attended[sample, head * size : (head + 1) * size, position] = v[sample] @ logits.softmax(0)
    out = torch.einsum("oi,bin->bon", block.proj_out.weight[:, :, 0], attended) + block.proj_out.bias[:, None]
    return x + out.reshape(x.shape)


@pytest.mark.parametrize("order", ["legacy", "new"])
def test_attention_is_the_formula_in_either_order(order):
    torch.manual_seed(0)
    block = SelfAttention(64, 4, order).double().requires_grad_(False)
    x = torch.randn(2, 64, 3, 2, dtype=torch.float64)
    torch.testing.assert_close(block(x), attention_by_formula(block, x))


def test_the_orders_differ_where_there_is_more_than_one_head():
    qkv = torch.arange(12.0).reshape(1, 12, 1)
    legacy, new = (torch.cat(split_heads(qkv, 2, order)).flatten(1).tolist() for order in ("legacy", "new"))
    assert legacy == [[0, 1, 6, 7], [2, 3, 8, 9], [4, 5, 10, 11]]
    assert new == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert all(map(torch.equal, split_heads(qkv, 1, "legacy"), split_heads(qkv, 1, "new")))


def test_the_time_embedding_is_cosines_then_sines():
    found = time_embedding(torch.tensor([0, 37]), 8)
    frequencies = [10_000 ** (-i / 4) for i in range(4)]
    expected = [math.cos(37 * f) for f in frequencies] + [math.sin(37 * f) for f in frequencies]
    assert found[0].tolist() == [1, 1, 1, 1, 0, 0, 0, 0]
    torch.testing.assert_close(found[1], torch.tensor(expected), rtol=0, atol=1e-5)


@pytest.mark.parametrize("change", [
    {},
    {"classes": 3},
    {"qkv": "new"},
    {"heads": 2},
    {"heads": 2, "head_channels": 64, "attention": (0, 1, 2)},
    {"multipliers": (1, 3), "head_channels": 64},
    {"multipliers": (0.5, 1, 2), "channels": 64},
    {"multipliers": (1, 2, 3), "attention": (0, 1, 2), "blocks": 2},
    {"attention": ()},
    {"multipliers": (1,), "attention": (0,), "learned_variance": False},
], ids=str)  # fmt: skip
def test_the_network_equals_guided_diffusion_s_with_the_same_weights(change):
    config = replace(TINY_ADM, **change)
    reference, unet = tiny_adm(config, config.classes), tiny_adm_unet(config, config.classes)
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([2, 0]) if config.classes else None
    with torch.no_grad():
        for t in (0, 731):
            expected = reference(x, torch.full((2,), t), labels)
            assert expected.std() > 0.01
            torch.testing.assert_close(unet(x, t, class_labels=labels).sample, expected, rtol=1e-4, atol=1e-5)


def test_a_class_moves_the_prediction():
    prior = ADMPrior(tiny_adm_unet(classes=3), label=1)
    other = ADMPrior(prior.unet, label=2)
    x = prior.noise([torch.Generator().manual_seed(0)])
    with torch.no_grad():
        assert not torch.allclose(prior.denoise(x, 500).x0, other.denoise(x, 500).x0)


def test_the_prior_is_ddpm_with_a_learned_variance():
    prior = ADMPrior(tiny_adm_unet())
    levels = prior.timesteps(250).tolist()
    assert prior.shape == (3, 16, 16) and prior.schedule.learned_variance and prior.schedule.clip == 1.0
    assert prior.schedule.abar[0] == pytest.approx(1 - 1e-4) and levels[0] == 999 and levels[-1] == 0
    x = prior.noise([torch.Generator().manual_seed(0)])
    with torch.no_grad():
        output = prior.unet(x, 500).sample
        assert torch.equal(prior.denoise(x, 500).spread, output[:, 3:])


@pytest.mark.parametrize(("t", "t_prev"), [(999, 998), (999, 995), (503, 499), (4, 0)])
def test_a_step_of_the_prior_is_the_textbook_posterior(t, t_prev):
    prior = ADMPrior(tiny_adm_unet())
    x_t = prior.noise([torch.Generator().manual_seed(0)])
    with torch.no_grad():
        noise, spread = prior.unet(x_t, t).sample.chunk(2, dim=1)
        found = prior.step(prior.denoise(x_t, t), t, t_prev, x_t, [torch.Generator().manual_seed(1)])

    abar = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
    after, before = abar[t], abar[t_prev]
    beta = 1 - after / before
    tilde = beta * (1 - before) / (1 - after)
    x0 = ((x_t - (1 - after).sqrt() * noise) / after.sqrt()).clamp(-1, 1)
    mean = (after / before).sqrt() * (1 - before) / (1 - after) * x_t + before.sqrt() * beta / (1 - after) * x0
    deviation = torch.exp(0.5 * ((1 + spread) / 2 * beta.log() + (1 - spread) / 2 * tilde.log()))
    expected = mean + deviation * prior.noise([torch.Generator().manual_seed(1)])
    torch.testing.assert_close(found, expected.float(), rtol=0, atol=2e-6)


def test_checkpointing_changes_memory_and_nothing_else():
    prior, frugal = ADMPrior(tiny_adm_unet()), ADMPrior(tiny_adm_unet())
    frugal.unet.enable_gradient_checkpointing()
    kept = []

    def gradient(prior):
        state = prior.noise([torch.Generator().manual_seed(0)]).requires_grad_()
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: (sizes.append(t.numel()), t)[1], lambda t: t):
            score = prior.denoise(state, 300).x0.square().sum()
        kept.append(sum(sizes))
        return torch.autograd.grad(score, state)[0]

    torch.testing.assert_close(gradient(prior), gradient(frugal))
    assert kept[1] < kept[0] / 2


@pytest.mark.parametrize(("classes", "label", "message"), [
    (None, 1, "ADM network has no class 1: it is unconditional"),
    (3, 3, "no class 3: choose 0 to 2"),
    (3, None, "draws one of 3 classes: say which"),
])  # fmt: skip
def test_a_class_that_does_not_fit_is_refused(classes, label, message):
    with pytest.raises(BlindspotError, match=message):
        ADMPrior(tiny_adm_unet(classes=classes), label=label)


def test_half_precision_weights_keep_float32_states():
    prior = ADMPrior(tiny_adm_unet().to(torch.bfloat16))
    x = prior.noise([torch.Generator().manual_seed(0)])
    with torch.no_grad():
        assert prior.denoise(x, 500).x0.dtype == torch.float32
    assert TINY_ADM.image_size == prior.image_size
