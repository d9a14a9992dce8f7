"""Whole modules of overcomplete: read as the library means them, without the library and without running anything."""

from __future__ import annotations

import json
import os
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from engine.dictionary.published import Options, import_dictionary, read_published
from engine.dictionary.published.modules import ALLOWED, ALLOWED_CLASSES
from engine.errors import BlindspotError
from tests.engine.dictionary.published.compare import ALL, CONCEPTS, DIM, K, assert_same, imported, shake, tokens
from tests.engine.dictionary.published.oracles import oracle

THRESHOLD = 0.829


@pytest.fixture(scope="module")
def sae():
    return oracle("overcomplete", "sae")[0]


def points(rows: int = CONCEPTS) -> torch.Tensor:
    return torch.randn(rows, DIM, generator=torch.Generator().manual_seed(5))


MAKERS = {
    "topk": lambda sae: sae.TopKSAE(DIM, CONCEPTS, top_k=K, dictionary_params={"use_multiplier": True}),
    "topk, tied": lambda sae: sae.TopKSAE(DIM, CONCEPTS, top_k=K).tied(bias=True),
    "topk, untied": lambda sae: sae.TopKSAE(DIM, CONCEPTS, top_k=K).untied(bias=True),
    "topk, layer norm": lambda sae: sae.TopKSAE(DIM, CONCEPTS, top_k=K, encoder_module="mlp_ln_1"),
    "topk, batch norm": lambda sae: sae.TopKSAE(DIM, CONCEPTS, top_k=K, encoder_module="mlp_bn_1"),
    "archetypal topk": lambda sae: sae.RATopKSAE(DIM, CONCEPTS, points=points(30), top_k=K),
    "archetypal topk, wide": lambda sae: sae.RATopKSAE(DIM, CONCEPTS, points=points(), top_k=K, delta=0.2),
    "batch topk": lambda sae: sae.BatchTopKSAE(DIM, CONCEPTS, top_k=K * 64),
    "jump": lambda sae: sae.JumpSAE(DIM, CONCEPTS),
    "archetypal jump": lambda sae: sae.RAJumpSAE(DIM, CONCEPTS, points=points()),
}


@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("name", MAKERS)
def test_codes_and_reconstructions_are_the_librarys(sae, tmp_path: Path, name: str, trained: bool) -> None:
    x, model = tokens(), shake(MAKERS[name](sae))
    model.train()(x)
    torch.save(model if trained else model.eval(), tmp_path / "sae.pth")
    with torch.no_grad():
        _, codes, reconstruction = model.eval()(x)
    options = ALL if "topk" not in name or "batch topk" in name else None
    dictionary, report = imported(tmp_path / "sae.pth", tmp_path / "out", options=options)
    assert_same(dictionary, codes, reconstruction, x)
    assert report.kind == "overcomplete"
    if name == "archetypal topk, wide":
        assert "at most 0.2 long" in report.assumed["atoms"]


def whole(sae, path: Path) -> nn.Module:
    """RA-SAE-DINOv2-32k in small: a BatchTopK with LayerNorm, archetypal atoms and a DataParallel, and config.json."""
    model = sae.BatchTopKSAE(DIM, CONCEPTS, top_k=K, encoder_module="mlp_ln_1")
    model.dictionary = sae.RelaxedArchetypalDictionary(DIM, CONCEPTS, points())
    shake(model)
    with torch.no_grad():
        model.encoder.final_block[1].weight.add_(1)
    parallel = nn.DataParallel(model)
    parallel.device_ids, parallel.output_device = [0], 0
    parallel.src_device_obj, parallel.dim = torch.device("cuda", 0), 0
    parallel.running_threshold = 7.0  # set on the wrapper it has no effect
    torch.save(parallel, path / "RA-SAE-DINOv2-32k.pth")
    described = {"model_type": "ra_sae", "top_k": K, "running_threshold": THRESHOLD}
    (path / "config.json").write_text(json.dumps(described))
    return model


def test_the_file_of_ra_sae_dinov2_32k_takes_its_threshold_from_config_json(sae, tmp_path: Path) -> None:
    model, x = whole(sae, tmp_path), tokens()
    dictionary, report = imported(tmp_path, tmp_path / "out", options=ALL)
    model.running_threshold = THRESHOLD
    with torch.no_grad():
        _, codes, reconstruction = model.eval()(x)
    assert_same(dictionary, codes, reconstruction, x)
    assert "0.829" in report.assumed["threshold"] and "LayerNorm" in report.assumed["normalisation"]
    (tmp_path / "config.json").unlink()
    with pytest.raises(BlindspotError, match="a BatchTopK without its threshold; give --threshold T"):
        read_published(str(tmp_path), options=Options(sparsity=K))
    told = Options(sparsity=CONCEPTS, threshold=THRESHOLD)
    assert_same(read_published(str(tmp_path), options=told)[0].dictionary, codes, reconstruction, x)


def test_overcomplete_is_neither_needed_nor_imported(sae, tmp_path: Path, monkeypatch) -> None:
    whole(sae, tmp_path)
    for name in [name for name in sys.modules if name.split(".")[0] == "overcomplete"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "overcomplete", None)  # importing it now fails
    assert read_published(str(tmp_path))[0].dictionary.concepts == CONCEPTS
    assert not [name for name in sys.modules if name.startswith("overcomplete.")]


def test_the_list_names_what_the_library_has_and_the_list_is_left_only_while_reading(sae, tmp_path: Path) -> None:
    for name in ALLOWED["overcomplete.sae"]:
        module, _, attribute = name.rpartition(".")
        assert hasattr(oracle("overcomplete", f"sae.{module}")[0], attribute)
    torch.save(sae.TopKSAE(DIM, CONCEPTS, top_k=K), tmp_path / "sae.pth")
    read_published(str(tmp_path))
    assert not set(ALLOWED_CLASSES) & set(torch.serialization.get_safe_globals())


def refusal(path: Path) -> str:
    """The one sentence with which a file is refused, after which nothing is left behind."""
    before = sorted(found.name for found in path.parent.iterdir())
    with pytest.raises(BlindspotError) as caught:
        import_dictionary(str(path), path.parent / "out", options=Options(sparsity=K))
    assert sorted(found.name for found in path.parent.iterdir()) == before
    message = str(caught.value)
    assert "\n" not in message and message.endswith(".")
    return message


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.folder),)


class Shell:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple:
        return os.system, (self.command,)


class Evaluated:
    """Evaluates an expression when it is unpickled."""

    def __init__(self, expression: str) -> None:
        self.expression = expression

    def __reduce__(self) -> tuple:
        return eval, (self.expression,)


class Unknown(nn.Linear):
    """A module that is on no list, and acts when its state is set."""

    def __setstate__(self, state: dict) -> None:
        state["sprung"].mkdir()


SPOTS = {
    "top": lambda model, trap: trap,
    "attribute": lambda model, trap: setattr(model, "note", trap) or model,
    "deep attribute": lambda model, trap: setattr(model.encoder.final_block[0], "note", {"a": [(trap,)]}) or model,
    "hook": lambda model, trap: model.encoder._forward_hooks.update({0: trap}) or model,
    "buffer": lambda model, trap: model.dictionary._buffers.update({"multiplier": trap}) or model,
    "rule": lambda model, trap: setattr(model, "top_k", trap) or model,
    "name": lambda model, trap: model._modules.update({trap: nn.ReLU()}) or model,
    "wrapper": lambda model, trap: setattr(wrapper := nn.DataParallel(model), "note", trap) or wrapper,
}


@pytest.mark.parametrize("spot", SPOTS)
@pytest.mark.parametrize("kind", ["mkdir", "os.system", "exec", "unknown module"])
def test_a_trap_anywhere_in_a_module_is_refused_and_does_not_spring(sae, tmp_path: Path, spot: str, kind: str) -> None:
    sprung = tmp_path / "sprung"
    unknown = Unknown(2, 2)
    unknown.sprung = sprung
    traps = {"mkdir": Trap(sprung), "os.system": Shell(f"mkdir {sprung}"), "unknown module": unknown}
    traps["exec"] = Evaluated(f"__import__('os').mkdir({str(sprung)!r})")
    torch.save(SPOTS[spot](sae.TopKSAE(DIM, CONCEPTS, top_k=K), traps[kind]), tmp_path / "sae.pth")
    assert "could run code, so it was not opened" in refusal(tmp_path / "sae.pth")
    assert not sprung.exists()
    torch.load(tmp_path / "sae.pth", weights_only=False)
    assert sprung.exists()


class Impostor(nn.Module):
    """Takes the name of a class on the list, and acts when its state is set."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def __getstate__(self) -> tuple:
        return (str(self.folder),)

    def __setstate__(self, state: tuple) -> None:
        Path(state[0]).mkdir()


class Caller(Impostor):
    """Takes the name of a class on the list, and wants it called."""

    def __reduce__(self) -> tuple:
        return type(self), (str(self.folder),)


@pytest.mark.parametrize(
    ("cls", "said"), [(Impostor, "not an autoencoder as overcomplete saves it"), (Caller, "not a")]
)
def test_a_listed_name_stands_for_nothing_but_attributes(
    sae, tmp_path: Path, monkeypatch, cls: type, said: str
) -> None:
    module = oracle("overcomplete", "sae.topk_sae")[0]
    disguised = type("TopKSAE", (cls,), {"__module__": module.__name__, "__qualname__": "TopKSAE"})
    monkeypatch.setattr(module, "TopKSAE", disguised)
    torch.save(disguised(tmp_path / "sprung"), tmp_path / "sae.pth")
    assert said in refusal(tmp_path / "sae.pth")
    assert not (tmp_path / "sprung").exists()


BREAKS = {
    "a module in itself": lambda model: model.encoder._modules.update(inner=model),
    "modules that double at every level": lambda model: double(model, 40),
    "no attributes": lambda model: model.__dict__.pop("_parameters"),
    "a table that is none": lambda model: model.__dict__.update(_buffers=[]),
    "a nameless module": lambda model: model._modules.update({3: nn.ReLU()}),
    "a module that is none": lambda model: model._modules.update(dictionary=torch.zeros(2)),
}


def double(module: nn.Module, depth: int) -> None:
    for _ in range(depth):
        inner = nn.Sequential()
        module._modules.update(left=inner, right=inner)
        module = inner


@pytest.mark.parametrize("broken", BREAKS)
def test_odd_modules_are_one_sentence(sae, tmp_path: Path, broken: str) -> None:
    model = sae.TopKSAE(DIM, CONCEPTS, top_k=K)
    BREAKS[broken](model)
    torch.save(model, tmp_path / "sae.pth")
    assert "not an autoencoder as overcomplete saves it" in refusal(tmp_path / "sae.pth")


def test_what_the_reader_would_misread_is_refused(sae, tmp_path: Path) -> None:
    path = tmp_path / "sae.pth"
    torch.save(sae.TopKSAE(DIM, CONCEPTS, dictionary_params={"normalization": "max_l2"}), path)
    assert "normalises its atoms by 'max_l2'" in refusal(path)
    torch.save(sae.MpSAE(DIM, CONCEPTS, k=K), path)
    assert "objects (overcomplete.sae.mp_sae.MpSAE)" in refusal(path)
    torch.save(sae.TopKSAE(DIM, CONCEPTS, encoder_module="mlp_ln_3"), path)
    assert "an encoder that is not linear" in refusal(path)
    torch.save(nn.Linear(DIM, CONCEPTS), path)
    assert "in no known format (its tensors: bias, weight)" in refusal(path)
    torch.save(sae.TopKSAE(DIM, CONCEPTS), path, _use_new_zipfile_serialization=False)
    assert "could run code, so it was not opened" in refusal(path)


@pytest.fixture(scope="module")
def intact(sae, tmp_path_factory) -> tuple[Path, bytes, slice]:
    """A whole module, and where in its file the pickle lies."""
    path = tmp_path_factory.mktemp("mutated") / "sae.pth"
    torch.save(sae.TopKSAE(DIM, CONCEPTS, top_k=K), path)
    with zipfile.ZipFile(path) as file:
        pickled = file.read("sae/data.pkl")
    content = path.read_bytes()
    return path, content, slice(start := content.find(pickled), start + len(pickled))


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_damaged_pickle_is_a_dictionary_or_one_sentence(intact, data) -> None:
    path, content, where = intact
    mutated = bytearray(content)
    for _ in range(data.draw(st.integers(1, 3))):
        mutated[data.draw(st.integers(where.start, where.stop - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(mutated)
    try:
        read_published(str(path), options=Options(sparsity=K))
    except BlindspotError as error:
        assert str(error).endswith(".") and "\n" not in str(error)
