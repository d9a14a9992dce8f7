"""State dicts of overcomplete, written and judged by overcomplete itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from engine.dictionary.archetypal import RelaxedArchetypal
from engine.dictionary.published import Options, read_published
from engine.dictionary.topk import Thresholded, TopK
from engine.errors import BlindspotError
from tests.engine.dictionary.published.compare import ALL, CONCEPTS, DIM, K, assert_same, imported, shake, tokens
from tests.engine.dictionary.published.oracles import oracle

THRESHOLD = 0.829


@pytest.fixture(scope="module")
def sae():
    return oracle("overcomplete", "sae")[0]


@torch.no_grad()
def after_a_step(model):
    """A model with an archetypal dictionary as an optimiser step leaves it: a little outside its constraints."""
    shake(model).dictionary.W.add_(0.3)
    slack = model.dictionary.Relax
    slack.mul_(1.05 / slack.norm(dim=-1).max())
    return model


def judged(model, x):
    """What the library itself says in eval mode, after the fusing that `eval()` does."""
    with torch.no_grad():
        _, codes, reconstruction = model.eval()(x)
    return codes, reconstruction


@pytest.mark.parametrize("encoder", ["linear", "mlp_ln_1", "mlp_bn_1"])
def test_topk_with_each_linear_encoder(sae, tmp_path: Path, encoder: str) -> None:
    model = shake(
        sae.TopKSAE(DIM, CONCEPTS, top_k=K, encoder_module=encoder, dictionary_params={"use_multiplier": True})
    )
    x = tokens()
    model.train()(x * 3 + 1)  # gives a BatchNorm something to remember
    torch.save(model.state_dict(), tmp_path / "state.pt")
    dictionary, report = imported(tmp_path / "state.pt", tmp_path / "out", options=Options(sparsity=K))
    assert_same(dictionary, *judged(model, x), x)
    assert report.kind == "overcomplete" and report.sparsity == K
    assert type(dictionary) is (Thresholded if encoder == "mlp_ln_1" else TopK)
    chosen = torch.tensor([0, 7, CONCEPTS - 1])
    with torch.no_grad():
        torch.testing.assert_close(dictionary.preactivate(x, chosen), model(x)[0][:, chosen], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("change", ["tied", "untied"])
def test_tied_encoders(sae, tmp_path: Path, change: str, bias: bool) -> None:
    model = sae.TopKSAE(DIM, CONCEPTS, top_k=K)
    shake(getattr(model, change)(bias=bias))
    torch.save({"state_dict": model.state_dict(), "top_k": K}, tmp_path / "state.pt")
    dictionary, _ = imported(tmp_path / "state.pt", tmp_path / "out")
    x = tokens()
    assert_same(dictionary, *judged(model, x), x)


def test_relaxed_archetypal_keeps_its_archetypes(sae, tmp_path: Path) -> None:
    points = torch.randn(30, DIM)
    model = after_a_step(sae.RATopKSAE(DIM, CONCEPTS, points=points, top_k=K))
    torch.save({"state_dict": model.state_dict(), "top_k": K}, tmp_path / "state.pt")
    dictionary, report = imported(tmp_path / "state.pt", tmp_path / "out")
    x = tokens()
    assert_same(dictionary, *judged(model, x), x)
    assert isinstance(dictionary, RelaxedArchetypal) and torch.equal(dictionary.points, points)
    assert torch.allclose(dictionary.weights.sum(dim=-1), torch.ones(CONCEPTS)) and dictionary.delta == 1
    assert "30 points" in report.assumed["atoms"] and "at most 1 long" in report.assumed["atoms"]


def test_more_concepts_than_points_leave_overcompletes_zero_atoms_as_they_are(sae, tmp_path: Path) -> None:
    model = sae.RATopKSAE(DIM, CONCEPTS, points=torch.randn(30, DIM), top_k=K)
    torch.save(model.state_dict(), tmp_path / "state.pt")
    dictionary, report = imported(tmp_path / "state.pt", tmp_path / "out", options=Options(sparsity=K))
    x = tokens()
    assert_same(dictionary, *judged(model, x), x)
    assert (
        int((dictionary.atoms().norm(dim=-1) == 0).sum()) == CONCEPTS - 30
        and "norm 0 to" in report.assumed["atom norm"]
    )


def test_batch_topk_takes_its_threshold_from_beside_the_state_dict_or_from_the_user(sae, tmp_path: Path) -> None:
    model = shake(sae.BatchTopKSAE(DIM, CONCEPTS, top_k=K * 64))
    x = tokens()
    for _ in range(3):
        model(x)
    torch.save(model.state_dict(), tmp_path / "bare.pt")
    torch.save({"state_dict": model.state_dict(), "running_threshold": model.running_threshold}, tmp_path / "state.pt")
    expected = judged(model, x)
    dictionary, report = imported(tmp_path / "state.pt", tmp_path / "out", options=ALL)
    assert_same(dictionary, *expected, x)
    assert "at least" in report.assumed["threshold"]
    told = Options(sparsity=CONCEPTS, threshold=float(model.running_threshold))
    assert_same(read_published(str(tmp_path / "bare.pt"), options=told)[0].dictionary, *expected, x)
    with pytest.raises(BlindspotError, match="give --sparsity K if it is a TopK, or --threshold T"):
        read_published(str(tmp_path / "bare.pt"))


def test_a_code_that_equals_the_threshold_is_kept(sae, tmp_path: Path) -> None:
    model = shake(sae.BatchTopKSAE(DIM, CONCEPTS, top_k=100))
    x = tokens()
    model(x)
    model.running_threshold = model.eval().encode(x)[1].detach().flatten().sort().values[-50]
    told = Options(sparsity=CONCEPTS, threshold=model.running_threshold.item())
    torch.save(model.state_dict(), tmp_path / "state.pt")
    codes, reconstruction = judged(model, x)
    assert int((codes > 0).sum()) == 50
    assert_same(read_published(str(tmp_path / "state.pt"), options=told)[0].dictionary, codes, reconstruction, x)


def test_the_layout_of_ra_sae_dinov2_32k(sae, tmp_path: Path) -> None:
    """A BatchTopK with LayerNorm in the encoder and an archetypal dictionary, of a DataParallel, with a config.json."""
    model = sae.BatchTopKSAE(DIM, CONCEPTS, top_k=K, encoder_module="mlp_ln_1")
    model.dictionary = sae.RelaxedArchetypalDictionary(DIM, CONCEPTS, torch.randn(CONCEPTS, DIM))
    after_a_step(model)
    with torch.no_grad():
        model.encoder.final_block[1].weight.add_(1)
    model.running_threshold = THRESHOLD
    torch.save(torch.nn.DataParallel(model).state_dict(), tmp_path / "RA-SAE-DINOv2-32k.pth")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "ra_sae", "running_threshold": THRESHOLD}))
    out = tmp_path / "out"
    dictionary, report = imported(tmp_path / "RA-SAE-DINOv2-32k.pth", out, options=ALL)
    x = tokens()
    codes, reconstruction = judged(model, x)
    assert_same(dictionary, codes, reconstruction, x)
    assert codes[codes > 0].min() >= THRESHOLD and "0.829" in report.assumed["threshold"]
    assert "LayerNorm" in report.assumed["normalisation"]
    written = json.loads((out / "config.json").read_text())
    assert written["imported"]["assumed"] == report.assumed and written["layer_norm"] is True


@pytest.mark.parametrize("archetypal", [False, True])
def test_jump_thresholds_are_in_the_state_dict(sae, tmp_path: Path, archetypal: bool) -> None:
    if archetypal:
        model = after_a_step(sae.RAJumpSAE(DIM, CONCEPTS, points=torch.randn(CONCEPTS, DIM)))
    else:
        model = shake(sae.JumpSAE(DIM, CONCEPTS))
    torch.save(model.state_dict(), tmp_path / "state.pt")
    dictionary, report = imported(tmp_path / "state.pt", tmp_path / "out", options=ALL)
    x = tokens()
    assert_same(dictionary, *judged(model, x), x)
    assert "per concept" in report.assumed["threshold"]


def test_a_longer_slack_than_the_default_is_not_clipped_unless_the_file_says_so(sae, tmp_path: Path) -> None:
    model = sae.RATopKSAE(DIM, CONCEPTS, points=torch.randn(CONCEPTS, DIM), top_k=K, delta=3.0)
    with torch.no_grad():
        model.dictionary.Relax.normal_()
        model.dictionary.Relax.mul_(2.5 / model.dictionary.Relax.norm(dim=-1, keepdim=True))
    torch.save({"state_dict": model.state_dict(), "top_k": K}, tmp_path / "state.pt")
    dictionary, report = imported(tmp_path / "state.pt", tmp_path / "out")
    x = tokens()
    assert_same(dictionary, *judged(model, x), x)
    assert "up to 2.5 long" in report.assumed["atoms"] and dictionary.delta == pytest.approx(2.5)


def test_deeper_encoders_are_refused(sae, tmp_path: Path) -> None:
    torch.save(sae.TopKSAE(DIM, CONCEPTS, encoder_module="mlp_ln_3").state_dict(), tmp_path / "state.pt")
    with pytest.raises(BlindspotError, match="an encoder that is not linear"):
        read_published(str(tmp_path / "state.pt"), options=Options(sparsity=K))
