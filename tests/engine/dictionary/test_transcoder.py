"""The transcoder is a convolution, Top-K per position, and one dictionary for all positions."""

from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from engine.dictionary.base import Dictionary
from engine.dictionary.fitting import fit
from engine.dictionary.spec import DictionarySpec
from engine.dictionary.topk import TopK
from engine.dictionary.transcoder import Transcoder
from engine.errors import BlindspotError

GRID = (3, 5)
transcoder_spec = partial(DictionarySpec, kind="transcoder", device="cpu")


@pytest.fixture
def transcoder() -> Transcoder:
    torch.manual_seed(0)
    made = Transcoder(4, 10, 2, grid=GRID, kernel=3, out_dim=6)
    with torch.no_grad():
        made.mean.normal_()
        made.scale.fill_(0.7)
        made.out_mean.normal_()
        made.out_scale.fill_(1.3)
        made.encoder.bias.normal_()
    return made


def dense(transcoder: Transcoder, maps: torch.Tensor) -> torch.Tensor:
    """Equation 38 with Conv2d: pre-activations [B h w, K] of maps [B, h, w, d]."""
    kernels = transcoder.encoder.weight.view(transcoder.concepts, -1, transcoder.kernel, transcoder.kernel)
    padding = transcoder.kernel // 2
    channels_first = transcoder.standardise(maps).permute(0, 3, 1, 2)
    return F.conv2d(channels_first, kernels, transcoder.encoder.bias, padding=padding).permute(0, 2, 3, 1).flatten(0, 2)


def test_codes_are_topk_of_a_convolution_and_decode_is_shared(transcoder: Transcoder) -> None:
    maps = torch.randn(2, *GRID, 4)
    active = dense(transcoder, maps)
    values, indices = active.topk(2, dim=-1)
    codes = transcoder.encode(maps)
    assert torch.equal(codes.indices, indices)
    torch.testing.assert_close(codes.values, values.relu())
    full = torch.zeros_like(active).scatter(1, indices, values.relu())
    expected = full @ transcoder.atoms() / 1.3 + transcoder.out_mean
    torch.testing.assert_close(transcoder.decode(codes), expected)


def test_maps_and_their_tokens_are_the_same(transcoder: Transcoder) -> None:
    maps, chosen = torch.randn(2, *GRID, 4), torch.tensor([7, 1])
    torch.testing.assert_close(transcoder.encode(maps).values, transcoder.encode(maps.flatten(0, 2)).values)
    active = transcoder.preactivate(maps, chosen)
    assert active.shape == (2, *GRID, 2)
    torch.testing.assert_close(active.flatten(0, 2), dense(transcoder, maps)[:, chosen])
    torch.testing.assert_close(transcoder.preactivate(maps.flatten(0, 2), chosen), active.flatten(0, 2))


def test_gradients_are_those_of_the_convolution(transcoder: Transcoder) -> None:
    maps = torch.randn(2, *GRID, 4, requires_grad=True)
    transcoder.encode(maps).values.square().sum().backward()
    found = maps.grad, transcoder.encoder.weight.grad
    maps.grad = transcoder.encoder.weight.grad = None
    dense(transcoder, maps).topk(2, dim=-1).values.relu().square().sum().backward()
    for one, other in zip(found, (maps.grad, transcoder.encoder.weight.grad), strict=True):
        torch.testing.assert_close(one, other)


def test_with_a_kernel_of_one_it_is_topk() -> None:
    transcoder, plain = Transcoder(4, 10, 2, grid=GRID, kernel=1), TopK(4, 10, 2)
    plain.load_state_dict({name: transcoder.state_dict()[name] for name in plain.state_dict()})
    x = torch.randn(30, 4)
    torch.testing.assert_close(transcoder.reconstruct(x), plain.reconstruct(x))


def neighbourly_maps(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens [n, 8] of sparse maps, and what a 3 x 3 block would make of them, [n, 6]."""
    generator = torch.Generator().manual_seed(0)
    fired = (torch.rand(count, 6, 4, 4, generator=generator) < 0.05).float()
    seen = torch.einsum("bkhw,kd->bhwd", fired, torch.randn(6, 8, generator=generator))
    spread = F.max_pool2d(fired, 3, stride=1, padding=1)
    made = torch.einsum("bkhw,kd->bhwd", spread, torch.randn(6, 6, generator=generator))
    return seen.flatten(0, 2), made.flatten(0, 2)


def test_context_explains_what_single_tokens_cannot() -> None:
    tokens, targets = neighbourly_maps(100)
    r2 = {}
    for kernel in (1, 3):
        spec = transcoder_spec(concepts=24, sparsity=6, kernel=kernel, steps=120, batch=160, learning_rate=1e-2)
        made, report = fit(tokens, spec, grid=(4, 4), targets=targets)
        assert made.atoms().shape == (24, 6)
        torch.testing.assert_close(made.atoms().norm(dim=-1), torch.ones(24))
        r2[kernel] = report.r2
    assert r2[3] > 0.7
    assert r2[3] > r2[1] + 0.2


def test_training_stops_at_the_explained_variance_asked_for() -> None:
    tokens, _ = neighbourly_maps(60)
    spec = transcoder_spec(concepts=24, sparsity=4, steps=500, batch=160, learning_rate=5e-3, target_r2=0.8)
    _, report = fit(tokens, spec, grid=(4, 4))
    assert 5 < report.steps < 400
    assert report.r2 > 0.75


def test_round_trip(transcoder: Transcoder, tmp_path: Path) -> None:
    transcoder.save_pretrained(tmp_path)
    loaded = Dictionary.from_pretrained(tmp_path)
    maps = torch.randn(2, *GRID, 4)
    assert torch.equal(loaded.reconstruct(maps), transcoder.reconstruct(maps))
    assert loaded.grid == GRID and loaded.out_dim == 6


def test_bad_input_is_one_sentence(transcoder: Transcoder) -> None:
    with pytest.raises(BlindspotError, match="whole maps of 3 x 5 tokens, and 16 tokens are not"):
        transcoder.encode(torch.randn(16, 4))
    with pytest.raises(BlindspotError, match=r"reads tokens of shape \[N, 4\]"):
        transcoder.encode(torch.randn(1, 5, 3, 4))
    with pytest.raises(BlindspotError, match="cannot have a kernel of 2"):
        Transcoder(4, 10, 2, grid=GRID, kernel=2)
    with pytest.raises(BlindspotError, match="not whole maps of 15"):
        fit(torch.randn(40, 4), transcoder_spec(concepts=8, sparsity=2), grid=GRID)
    with pytest.raises(BlindspotError, match="targets go with a transcoder"):
        fit(torch.randn(40, 4), DictionarySpec(kind="topk", concepts=8, sparsity=2), targets=torch.randn(40, 4))
    with pytest.raises(BlindspotError, match="30 targets of width 4 do not go with 45 tokens"):
        spec = transcoder_spec(concepts=8, sparsity=2)
        fit(torch.randn(45, 4), spec, grid=GRID, targets=torch.randn(30, 4))
