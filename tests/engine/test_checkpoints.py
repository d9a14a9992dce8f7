"""However a checkpoint is wrapped, prefixed or cut into shards, its tensors come out under their own names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from engine.checkpoints import harmless, shards_of, unwrapped, without_prefixes
from engine.dictionary.published import Options, import_dictionary, read_published
from engine.errors import BlindspotError
from engine.priors.adm_conversion import ADMAssumptions, convert_adm, read_state
from tests.engine.priors.tiny import tiny_adm

D, K = 6, 10
SPARSIFY = {"encoder.weight": (K, D), "encoder.bias": (K,), "W_dec": (K, D), "b_dec": (D,)}
CONFIG = {"d_in": D, "num_latents": K, "k": 3, "activation": "topk"}


def state() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(*shape, generator=generator) for name, shape in SPARSIFY.items()}


def write(folder: Path, saved: object, name: str = "sae.pt") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "cfg.json").write_text(json.dumps(CONFIG))
    torch.save(saved, folder / name)
    return folder


prefixes = st.lists(
    st.sampled_from(["module", "_orig_mod", "_fsdp_wrapped_module", "_forward_module", "model", "sae", "autoencoder"]),
    max_size=4,
)
entries = st.lists(st.sampled_from(["state_dict", "ema", "model", "weights", "autoencoder", "module"]), max_size=3)


@given(prefixes=prefixes, entries=entries, infix=st.sampled_from(["", "_fsdp_wrapped_module.", "_orig_mod."]))
def test_wrappers_in_any_order_and_number_come_off(prefixes: list[str], entries: list[str], infix: str) -> None:
    own = state()
    saved: dict = {
        ".".join([*prefixes, name.replace("encoder.", "encoder." + infix)]): value for name, value in own.items()
    }
    saved |= {"sqrt_alphas_cumprod": torch.zeros(9), "global_step": 3}
    for entry in entries:
        saved = {entry: saved, "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}, "epoch": 3}
    tensors, beside = unwrapped(saved)
    assert {name for name in tensors if not harmless(name)} == set(SPARSIFY)
    assert all(torch.equal(tensors[name], value) for name, value in own.items())
    assert beside["global_step"] == 3


def test_averaged_weights_are_preferred_and_an_ema_of_numbers_is_not() -> None:
    own = state()
    other = {name: value + 1 for name, value in own.items()}
    assert torch.equal(unwrapped({"model": other, "ema": own})[0]["b_dec"], own["b_dec"])
    assert torch.equal(unwrapped({"model": own, "ema": {"decay": 0.99}})[0]["b_dec"], own["b_dec"])


def test_two_networks_in_one_checkpoint_are_refused() -> None:
    with pytest.raises(BlindspotError, match=r"holds the tensor encoder\.weight twice"):
        without_prefixes({"encoder.weight": torch.zeros(1), "module.encoder.weight": torch.ones(1)})


@pytest.mark.parametrize("index", [None, {}, {"weight_map": {}}, {"weight_map": {"W_dec": "../../secret"}}])
def test_shards_are_joined_with_or_without_a_usable_index(tmp_path: Path, index: dict | None) -> None:
    own = state()
    whole = write(tmp_path / "whole", own)
    folder = tmp_path / "sharded"
    folder.mkdir()
    (folder / "cfg.json").write_text(json.dumps(CONFIG))
    save_file({name: value for name, value in own.items() if name != "W_dec"}, folder / "m-00001-of-00002.safetensors")
    save_file({"W_dec": own["W_dec"]}, folder / "m-00002-of-00002.safetensors")
    if index is not None:
        (folder / "m.safetensors.index.json").write_text(json.dumps(index))
    expected, found = (read_published(str(src))[0].dictionary.state_dict() for src in (whole, folder))
    assert all(torch.equal(value, found[name]) for name, value in expected.items())
    (folder / "m-00002-of-00002.safetensors").unlink()
    with pytest.raises(BlindspotError, match=r"one of 2 shards, but m-00002-of-00002.safetensors is not beside it"):
        read_published(str(folder))


def test_an_index_joins_files_of_any_name(tmp_path: Path) -> None:
    for name in ("a.safetensors", "b.safetensors"):
        (tmp_path / name).touch()
    (tmp_path / "x.index.json").write_text(json.dumps({"weight_map": {"p": "a.safetensors", "q": "b.safetensors"}}))
    assert [path.name for path in shards_of(tmp_path / "b.safetensors")] == ["a.safetensors", "b.safetensors"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float64])
def test_weights_of_any_float_are_read(tmp_path: Path, dtype: torch.dtype) -> None:
    saved = write(tmp_path / "sae", {name: value.to(dtype) for name, value in state().items()})
    read = read_published(str(saved))[0].dictionary.state_dict()["decoder"]
    torch.testing.assert_close(read, state()["W_dec"].to(dtype).float())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"Q": torch.zeros(K, D)}, r"tensors that no dictionary of its kind has \('Q'\)"),
        ({"encoder.weight": torch.zeros(K, D, dtype=torch.int8)}, "'encoder.weight' holds int8"),
        ({"W_dec": torch.full((K, D), torch.nan)}, "'W_dec' holds values that are not finite"),
    ],
)
def test_what_would_be_read_wrong_is_refused_by_name(tmp_path: Path, change: dict, said: str) -> None:
    with pytest.raises(BlindspotError, match=said):
        import_dictionary(str(write(tmp_path / "sae", {**state(), **change})), tmp_path / "out", options=Options())
    assert not (tmp_path / "out").exists()
    saved = write(tmp_path / "fine", {**state(), "num_tokens_since_fired": torch.zeros(K)})
    assert import_dictionary(str(saved), tmp_path / "out").concepts == K


def test_a_configuration_above_a_folder_of_checkpoints_is_found(tmp_path: Path) -> None:
    write(tmp_path, state())
    (tmp_path / "checkpoints").mkdir()
    torch.save(state(), tmp_path / "checkpoints" / "step_1000.pt")
    assert read_published(str(tmp_path / "checkpoints" / "step_1000.pt"))[0].dictionary.sparsity == 3


@pytest.mark.parametrize("wrap", ["_orig_mod.module.", "model._fsdp_wrapped_module.", "module.module."])
@pytest.mark.parametrize("entry", ["ema", "state_dict", None])
def test_adm_checkpoints_are_unwrapped_alike(tmp_path: Path, wrap: str, entry: str | None) -> None:
    own = tiny_adm().state_dict()
    saved = {wrap + name: value for name, value in own.items()} | {"betas": torch.zeros(1000)}
    torch.save({entry: saved, "step": 5} if entry else saved, tmp_path / "model.pt")
    found = read_state(tmp_path / "model.pt")
    assert found.keys() == own.keys() and all(torch.equal(found[name], value) for name, value in own.items())


def test_adm_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    own = tiny_adm().state_dict()
    own["middle_block.0.in_layers.0.bias"][3] = torch.inf
    torch.save(own, tmp_path / "model.pt")
    with pytest.raises(BlindspotError, match=r"'middle_block.0.in_layers.0.bias' holds values that are not finite"):
        convert_adm(tmp_path / "model.pt", tmp_path / "adm", ADMAssumptions(16, 2))
    assert not (tmp_path / "adm").exists()
