"""Files of saev, sparsify, dictionary_learning and SAELens, written and judged by those libraries themselves.

saev's later formats have no release to install: they are written here as its source does (OSU-NLP-Group/saev,
src/saev/nn/modeling.py) and judged by the equations there.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from engine.dictionary.published import Options, read_published
from engine.dictionary.topk import Thresholded, TopK
from engine.errors import BlindspotError
from tests.engine.dictionary.published.compare import ALL, CONCEPTS, DIM, K, assert_same, imported, shake, tokens
from tests.engine.dictionary.published.oracles import oracle


def test_saev_as_released(tmp_path: Path) -> None:
    nn, config = oracle("saev", "nn", "config")
    model = shake(nn.SparseAutoencoder(config.SparseAutoencoder(d_vit=DIM, exp_factor=4)))
    nn.dump(str(tmp_path / "sae.pt"), model)
    x = tokens()
    dictionary, report = imported(tmp_path, tmp_path / "out", options=Options(sparsity=4 * DIM))
    with torch.no_grad():
        reconstruction, codes, _ = model(x)
    assert_same(dictionary, codes, reconstruction, x)
    assert report.kind == "saev" and "subtracted before" in report.assumed["centring"]
    assert "scale_mean" in report.assumed["normalisation"]


SAEV = {
    "schema 1, named class": ({"schema": 1, "cls": "TopK", "cfg": {"d_vit": DIM, "top_k": K}}, True),
    "schema 2, relu": ({"schema": 2, "cfg": {"d_vit": DIM, "activation": {"cls": "Relu", "params": {}}}}, False),
    "schema 5, top-k": ({"schema": 5, "cfg": {"activation": {"cls": "TopK", "params": {"top_k": K}}}}, False),
    "schema 5, batch": ({"schema": 5, "cfg": {"activation": {"cls": "BatchTopK", "params": {"top_k": K}}}}, False),
}


@pytest.mark.parametrize("name", SAEV)
def test_saev_since(tmp_path: Path, name: str) -> None:
    header, subtracts = SAEV[name]
    generator = torch.Generator().manual_seed(0)
    encoder, decoder = torch.randn(DIM, CONCEPTS, generator=generator), torch.randn(CONCEPTS, DIM, generator=generator)
    b_enc, b_dec = torch.randn(CONCEPTS, generator=generator), torch.randn(DIM, generator=generator)
    state = {"W_enc": encoder, "b_enc": b_enc, "W_dec": decoder, "b_dec": b_dec}
    if "batch" in name:
        state["activation.threshold"] = torch.tensor(1.5)
    with (tmp_path / "sae.pt").open("wb") as file:
        file.write((json.dumps(header) + "\n").encode())
        torch.save(state, file)
    x = tokens()
    a = (x - b_dec * subtracts) @ encoder + b_enc
    if "relu" in name:
        codes, options = a.relu(), ALL
    elif "batch" in name:
        codes, options = torch.where(a > 1.5, a, 0), ALL
    else:
        best = a.topk(K)
        codes, options = torch.zeros_like(a).scatter(1, best.indices, best.values), None
    dictionary, _ = imported(tmp_path / "sae.pt", tmp_path / "out", options=options)
    assert_same(dictionary, codes, codes @ decoder + b_dec, x)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"schema": 9, "cfg": {}}, "saev's schema 9"),
        ({"schema": 5, "cfg": {"activation": {"cls": "AbsBatchTopK", "params": {}}}}, "activation 'AbsBatchTopK'"),
        ({"schema": 5, "cfg": None}, "saev's schema 5"),
    ],
)
def test_unknown_saev_files_are_one_sentence(tmp_path: Path, header: dict, message: str) -> None:
    with (tmp_path / "sae.pt").open("wb") as file:
        file.write((json.dumps(header) + "\n").encode())
        torch.save({"W_enc": torch.zeros(DIM, CONCEPTS)}, file)
    with pytest.raises(BlindspotError, match=message):
        read_published(str(tmp_path))


def test_sparsify(tmp_path: Path) -> None:
    coder, config = oracle("sparsify", "sparse_coder", "config")
    model = shake(coder.SparseCoder(DIM, config.SparseCoderConfig(num_latents=CONCEPTS, k=K)))
    model.save_to_disk(tmp_path / "layer")
    x = tokens()
    with torch.no_grad():
        found = model.encode(x)
        codes = torch.zeros(len(x), CONCEPTS).scatter(1, found.top_indices, found.top_acts)
        reconstruction = model.decode(found.top_acts, found.top_indices)
    dictionary, report = imported(tmp_path / "layer", tmp_path / "out")
    assert_same(dictionary, codes, reconstruction, x)
    assert type(dictionary) is TopK and report.kind == "sparsify" and report.sparsity == K


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"transcode": True}, "a transcoder predicts another layer"),
        ({"skip_connection": True}, "its skip connection"),
        ({"activation": "groupmax"}, "activation 'groupmax'"),
    ],
)
def test_other_sparsify_coders_are_refused(tmp_path: Path, settings: dict, message: str) -> None:
    coder, config = oracle("sparsify", "sparse_coder", "config")
    coder.SparseCoder(DIM, config.SparseCoderConfig(num_latents=CONCEPTS, k=K, **settings)).save_to_disk(tmp_path)
    with pytest.raises(BlindspotError, match=message):
        read_published(str(tmp_path))


LEARNED = {
    "AutoEncoder": ("dictionary", {}),
    "AutoEncoderNew": ("dictionary", {}),
    "GatedAutoEncoder": ("dictionary", {}),
    "JumpReluAutoEncoder": ("dictionary", {}),
    "AutoEncoderTopK": ("trainers.top_k", {"k": K}),
    "BatchTopKSAE": ("trainers.batch_top_k", {"k": K}),
    "MatryoshkaBatchTopKSAE": ("trainers.matryoshka_batch_top_k", {"k": K, "group_sizes": [10, 30]}),
}


@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("name", LEARNED)
def test_dictionary_learning(tmp_path: Path, name: str, trained: bool) -> None:
    module, arguments = LEARNED[name]
    cls = getattr(oracle("dictionary_learning", module)[0], name)
    model = shake(cls(DIM, CONCEPTS, **arguments))
    if trained and "threshold" in dict(model.named_buffers()):
        model.threshold.fill_(0.4)
    torch.save(model.state_dict(), tmp_path / "ae.pt")
    described = {"trainer": {"dict_class": name, "k": K, "activation_dim": DIM, "dict_size": CONCEPTS}}
    (tmp_path / "config.json").write_text(json.dumps(described))
    judge = cls.from_pretrained(tmp_path / "ae.pt")
    x = tokens()
    with torch.no_grad():
        codes = judge.encode(x)
        reconstruction = judge.decode(codes)
    dictionary, report = imported(tmp_path, tmp_path / "out", options=None if name == "AutoEncoderTopK" else ALL)
    assert_same(dictionary, codes, reconstruction, x)
    assert report.kind == "dictionary_learning"
    assert type(dictionary) is (TopK if name == "AutoEncoderTopK" else Thresholded)
    if name == "AutoEncoder":
        assert report.assumed["atom norm"] == "atoms have unit norm"


def test_unknown_dictionary_learning_classes_are_refused(tmp_path: Path) -> None:
    torch.save({"encoder.weight": torch.zeros(CONCEPTS, DIM)}, tmp_path / "ae.pt")
    (tmp_path / "config.json").write_text(json.dumps({"trainer": {"dict_class": "IdentityDict"}}))
    with pytest.raises(BlindspotError, match="names the class 'IdentityDict'"):
        read_published(str(tmp_path))
    (tmp_path / "config.json").unlink()
    with pytest.raises(BlindspotError, match="names the class None"):
        read_published(str(tmp_path), kind="dictionary_learning")


LENS = {
    "StandardSAE": {},
    "JumpReLUSAE": {},
    "GatedSAE": {},
    "TopKSAE": {"k": K},
    "rescaled": {"k": K, "rescale_acts_by_decoder_norm": True},
}


@pytest.mark.parametrize("subtracts", [True, False])
@pytest.mark.parametrize("name", LENS)
def test_saelens(tmp_path: Path, name: str, subtracts: bool) -> None:
    (saes,) = oracle("sae_lens", "saes")
    cls = "TopKSAE" if name == "rescaled" else name
    config = getattr(saes, cls + "Config")(DIM, CONCEPTS, apply_b_dec_to_input=subtracts, **LENS[name])
    model = shake(getattr(saes, cls)(config))
    model.save_model(tmp_path / "sae")
    x = tokens()
    with torch.no_grad():
        codes = model.encode(x)
        reconstruction = model.decode(codes)
    dictionary, report = imported(tmp_path / "sae", tmp_path / "out", options=None if "k" in LENS[name] else ALL)
    assert_same(dictionary, codes, reconstruction, x)
    assert report.kind == "saelens" and ("subtracted" in report.assumed["centring"])


def test_a_batch_topk_of_saelens_is_saved_as_jumprelu(tmp_path: Path) -> None:
    (saes,) = oracle("sae_lens", "saes")
    config = saes.BatchTopKTrainingSAEConfig(DIM, CONCEPTS, k=K, rescale_acts_by_decoder_norm=False)
    model = shake(saes.BatchTopKTrainingSAE(config))
    model.topk_threshold.fill_(0.6)
    model.save_inference_model(tmp_path / "sae")
    dictionary, report = imported(tmp_path / "sae", tmp_path / "out", options=ALL)
    x = tokens()
    with torch.no_grad():
        a = (x - model.b_dec) @ model.W_enc + model.b_enc
        codes = torch.where(a > 0.6, a, 0)
        assert_same(dictionary, codes, codes @ model.W_dec + model.b_dec, x)
    assert "0.6" in report.assumed["threshold"]
    model.save_model(tmp_path / "training")
    with pytest.raises(BlindspotError, match="save_inference_model"):
        read_published(str(tmp_path / "training"))


def test_saelens_before_version_6(tmp_path: Path) -> None:
    (saes,) = oracle("sae_lens", "saes")
    model = shake(saes.TopKSAE(saes.TopKSAEConfig(DIM, CONCEPTS, k=K)))
    model.save_model(tmp_path)
    older = {"d_in": DIM, "d_sae": CONCEPTS, "activation_fn_str": "topk", "activation_fn_kwargs": {"k": K}}
    (tmp_path / "cfg.json").write_text(json.dumps(older))
    x = tokens()
    with torch.no_grad():
        codes = model.encode(x)
        assert_same(read_published(str(tmp_path))[0].dictionary, codes, model.decode(codes), x)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"normalize_activations": "layer_norm"}, "normalises its input"),
        ({"normalize_activations": "expected_average_only_in"}, "fold_activation_norm_scaling_factor"),
        ({"architecture": "temporal"}, "architecture 'temporal'"),
        ({"activation_fn": "tanh-relu"}, "with 'tanh-relu'"),
        ({"finetuning_scaling_factor": True}, "finetuning scaling factor"),
        ({"d_sae": CONCEPTS + 1}, r"'W_enc' has shape \[12, 40\] where \[12, 41\] belongs"),
    ],
)
def test_saelens_files_that_cannot_be_expressed_are_refused(tmp_path: Path, change: dict, message: str) -> None:
    (saes,) = oracle("sae_lens", "saes")
    saes.StandardSAE(saes.StandardSAEConfig(DIM, CONCEPTS)).save_model(tmp_path)
    config = json.loads((tmp_path / "cfg.json").read_text())
    (tmp_path / "cfg.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(BlindspotError, match=message):
        read_published(str(tmp_path))


def test_the_limit_on_codes_keeps_the_strongest_and_is_told(tmp_path: Path) -> None:
    (saes,) = oracle("sae_lens", "saes")
    model = shake(saes.StandardSAE(saes.StandardSAEConfig(DIM, CONCEPTS)))
    model.save_model(tmp_path)
    made, _ = read_published(str(tmp_path), options=Options(sparsity=3))
    x = tokens()
    with torch.no_grad():
        best = model.encode(x).topk(3)
        torch.testing.assert_close(made.dictionary.encode(x).values, best.values, atol=1e-5, rtol=1e-5)
    assert "the 3 strongest" in made.assumed["sparsity"] and dataclasses.asdict(made)["assumed"] == made.assumed
