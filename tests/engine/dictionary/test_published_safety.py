"""Nothing in a published file is ever run, nothing half-written is left, and each bad input is one sentence."""

from __future__ import annotations

import io
import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from engine.dictionary.published import READERS, Options, import_dictionary, read_published
from engine.dictionary.published.reading import Published, find_source
from engine.errors import BlindspotError

DIM, CONCEPTS, K = 4, 9, 2


def state() -> dict[str, torch.Tensor]:
    """A TopK state dict in overcomplete's names."""
    return {
        "encoder.final_block.0.weight": torch.randn(CONCEPTS, DIM),
        "encoder.final_block.0.bias": torch.zeros(CONCEPTS),
        "dictionary._weights": torch.randn(CONCEPTS, DIM),
        "dictionary.multiplier": torch.zeros(()),
    }


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.folder),)


def refusal(src: object, **arguments: object) -> str:
    """The one sentence with which an import is refused."""
    with pytest.raises(BlindspotError) as caught:
        read_published(str(src), **arguments)
    message = str(caught.value)
    assert "\n" not in message and message.endswith(".") and "Traceback" not in message
    return message


def bare(trap: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(trap))


def zipped(trap: object, path: Path) -> None:
    torch.save({**state(), "extra": trap}, path)


def legacy(trap: object, path: Path) -> None:
    torch.save({**state(), "extra": trap}, path, _use_new_zipfile_serialization=False)


def behind_a_header(trap: object, path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"W_enc": trap}, buffer)
    path.write_bytes(json.dumps({"d_vit": DIM}).encode() + b"\n" + buffer.getvalue())


def in_a_checkpoint(trap: object, path: Path) -> None:
    torch.save({"state_dict": state(), "top_k": K, "args": trap}, path)


@pytest.mark.parametrize("write", [bare, zipped, legacy, behind_a_header, in_a_checkpoint])
def test_a_pickle_with_code_inside_is_refused_and_its_code_does_not_run(tmp_path: Path, write) -> None:
    sprung = tmp_path / "sprung"
    write(Trap(sprung), tmp_path / "sae.pt")
    message = refusal(tmp_path / "sae.pt", options=Options(sparsity=K))
    assert "could run code, so it was not opened" in message and "sae.state_dict()" in message
    assert not sprung.exists()
    with pytest.raises(BlindspotError):
        import_dictionary(str(tmp_path / "sae.pt"), tmp_path / "out", options=Options(sparsity=K))
    assert [path.name for path in tmp_path.iterdir()] == ["sae.pt"]


def test_the_traps_work_where_pickles_are_trusted(tmp_path: Path) -> None:
    zipped(Trap(tmp_path / "sprung"), tmp_path / "sae.pt")
    torch.load(tmp_path / "sae.pt", weights_only=False)
    assert (tmp_path / "sprung").is_dir()


@pytest.mark.parametrize(
    "content",
    [b"", b"garbage", b"PK\x03\x04 not a zip", b"{", b"{]\n", b'{"schema": 5}\nrubbish', b"[1]\n"],
)
@pytest.mark.parametrize("name", ["sae.pt", "sae.safetensors"])
def test_damaged_weights_are_one_sentence(tmp_path: Path, content: bytes, name: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert "not a readable safetensors or PyTorch file" in refusal(tmp_path)


def test_a_file_cut_short_is_one_sentence(tmp_path: Path) -> None:
    torch.save(state(), tmp_path / "sae.pt")
    (tmp_path / "sae.pt").write_bytes((tmp_path / "sae.pt").read_bytes()[:-300])
    assert "not a readable" in refusal(tmp_path)


def test_damaged_configurations_are_one_sentence(tmp_path: Path) -> None:
    torch.save(state(), tmp_path / "sae.pt")
    for text, said in [("{", "not readable JSON"), ("[]", "no JSON object"), ("[" * 100_000, "not readable JSON")]:
        (tmp_path / "config.json").write_text(text)
        assert said in refusal(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder.final_block.0.bias": None}, "has no tensor 'encoder.final_block.0.bias'"),
        ({"dictionary._weights": None}, "has no tensor 'dictionary._weights'"),
        ({"encoder.final_block.0.weight": None}, "an encoder that is not linear"),
        ({"dictionary._weights": torch.zeros(CONCEPTS)}, "has shape [9] where [any, any] belongs"),
        ({"encoder.final_block.0.weight": torch.zeros(CONCEPTS, DIM + 1)}, "has shape [9, 5] where [9, 4] belongs"),
        ({"encoder.final_block.0.bias": torch.full((CONCEPTS,), torch.nan)}, "values that are not finite"),
    ],
)
def test_state_dicts_that_do_not_fit_are_one_sentence(tmp_path: Path, change: dict, message: str) -> None:
    changed = {name: value for name, value in {**state(), **change}.items() if value is not None}
    torch.save(changed, tmp_path / "sae.pt")
    assert message in refusal(tmp_path, options=Options(sparsity=K))


@pytest.mark.parametrize("sparsity", [0, -1, CONCEPTS + 1])
def test_impossible_options_are_one_sentence(tmp_path: Path, sparsity: int) -> None:
    torch.save(state(), tmp_path / "sae.pt")
    assert "give --sparsity K, from 1 to 9" in refusal(tmp_path, options=Options(sparsity=sparsity))
    assert "not a number of 0 or more" in refusal(tmp_path, options=Options(threshold=float("nan")))
    assert "there is no published kind 'x'" in refusal(tmp_path, kind="x").lower()


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 12)
    | st.floats()
    | st.text(max_size=3)
    | st.sampled_from(["topk", "relu"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["k", "cls", "params"]), inner),
    max_leaves=4,
)
SETTINGS = ("d_in", "d_sae", "k", "top_k", "architecture", "activation", "activation_fn", "activation_fn_kwargs")
SETTINGS += ("trainer", "dict_class", "running_threshold", "delta", "schema", "cfg", "cls", "normalize_activations")


@settings(max_examples=200, deadline=None)
@given(
    kind=st.sampled_from(sorted(READERS)),
    config=st.dictionaries(st.sampled_from(SETTINGS), JSON),
    header=st.none() | st.dictionaries(st.sampled_from(SETTINGS), JSON),
)
def test_whatever_a_configuration_says_the_answer_is_a_dictionary_or_one_sentence(kind, config, header) -> None:
    tensors = {**state(), "W_enc": torch.randn(DIM, CONCEPTS), "W_dec": torch.randn(CONCEPTS, DIM)}
    tensors |= {"b_enc": torch.zeros(CONCEPTS), "b_dec": torch.zeros(DIM), "threshold": torch.zeros(())}
    tensors |= {"encoder.weight": torch.randn(CONCEPTS, DIM), "encoder.bias": torch.zeros(CONCEPTS)}
    try:
        READERS[kind].read(Published("sae.pt", tensors, config, header), Options())
    except BlindspotError as error:
        assert str(error).endswith(".") and "\n" not in str(error)


def test_what_is_no_dictionary_is_one_sentence(tmp_path: Path) -> None:
    torch.save({"layer.weight": torch.zeros(2, 2)}, tmp_path / "other.pt")
    assert "in no known format (its tensors: layer.weight)" in refusal(tmp_path)
    torch.save(torch.zeros(3), tmp_path / "other.pt")
    assert "holds a Tensor, not a state dict" in refusal(tmp_path)
    torch.save({}, tmp_path / "other.pt")
    assert "its tensors: none" in refusal(tmp_path)


def test_sources_are_found_or_refused(tmp_path: Path) -> None:
    assert "holds no weights" in refusal(tmp_path)
    for absent in (tmp_path / "missing.pt", "owner/name/../../secret.pt", "a b/c", "owner"):
        assert f"There is no file or folder {absent}" in refusal(absent)
    save_file({"a": torch.zeros(1)}, tmp_path / "sparsity.safetensors")
    (tmp_path / "b.pt").touch()
    assert find_source(str(tmp_path)).weights.name == "b.pt"
    (tmp_path / "a.pt").touch()
    assert "several dictionaries (a.pt, b.pt)" in refusal(tmp_path)
    (tmp_path / "model.safetensors").touch()
    assert find_source(str(tmp_path)).weights.name == "model.safetensors"
    (tmp_path / "sae_weights.safetensors").touch()
    (tmp_path / "cfg.json").touch()
    found = find_source(str(tmp_path))
    assert found.weights.name == "sae_weights.safetensors" and found.config == tmp_path / "cfg.json"


def test_a_folder_in_use_is_left_alone_and_an_empty_one_is_filled(tmp_path: Path) -> None:
    torch.save({"state_dict": state(), "top_k": K}, tmp_path / "sae.pt")
    (tmp_path / "out").mkdir()
    report = import_dictionary(str(tmp_path / "sae.pt"), tmp_path / "out")
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == ["config.json", "dictionary.safetensors"] and report.concepts == CONCEPTS
    before = (tmp_path / "out" / "config.json").read_bytes()
    with pytest.raises(BlindspotError, match="is not an empty folder"):
        import_dictionary(str(tmp_path / "sae.pt"), tmp_path / "out")
    assert (tmp_path / "out" / "config.json").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "sae.pt"]
