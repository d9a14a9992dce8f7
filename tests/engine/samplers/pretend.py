"""A GPU that is not there: tensors of the CPU that say they lie on `cuda:0` and refuse to meet others.

What a real GPU refuses, this refuses, too: a tensor of the CPU and one of the GPU in one operation, and numpy of a
tensor that was not brought back. Kernels, memory and speed are the CPU's.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from engine.atlas import Atlas
from engine.samplers.models import ModelBundle

GPU = torch.device("cuda", 0)
DEVICE_OF = Tensor.device.__get__


class OnGPU(Tensor):
    """A tensor that says it lies on the GPU."""

    @property
    def device(self) -> torch.device:
        return GPU

    @property
    def is_cuda(self) -> bool:
        return True


def is_there(value: Any) -> bool:
    """Whether a value is a tensor of the GPU, where all weights are."""
    return isinstance(value, OnGPU | nn.Parameter)


def sent(value: Any) -> Any:
    """A tensor as it is on the GPU."""
    return value.as_subclass(OnGPU) if isinstance(value, Tensor) and not is_there(value) else value


def brought_back(value: Any) -> Any:
    """A tensor as it is on the CPU."""
    return value.as_subclass(Tensor) if isinstance(value, OnGPU) else value


class PretendedGPU(TorchFunctionMode):
    """Inside, `cuda` is a device."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = getattr(func, "__name__", ""), dict(kwargs or {})
        tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        there = any(map(is_there, tensors))
        wanted: torch.device | None = None
        if func == DEVICE_OF and there:
            return GPU
        if name in ("numpy", "__array__") and there:
            raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu()")
        if name == "cpu":
            wanted = torch.device("cpu")
        if name == "to":
            devices = [each for each in (*args[1:], kwargs.get("device")) if isinstance(each, str | torch.device)]
            devices += [each.device for each in args[1:] if isinstance(each, Tensor)]
            wanted = torch.device(devices[0]) if devices else None
            types_ = [each for each in (*args[1:], kwargs.get("dtype")) if isinstance(each, torch.dtype)]
            types_ += [each.dtype for each in args[1:] if isinstance(each, Tensor)]
            args, kwargs = (args[0], *(types_ or [args[0].dtype])), {}
        elif kwargs.get("device") is not None:
            wanted = torch.device(kwargs.pop("device"))
        elif there and name != "__getitem__":
            lost = [each for each in tensors if not is_there(each) and each.ndim]
            if lost:
                raise RuntimeError(f"Expected all tensors to be on the same device, but {name} got one of the CPU.")
        with torch._C.DisableTorchFunctionSubclass():
            found = func(*args, **kwargs)
        on_gpu = there if wanted is None else wanted.type == "cuda"
        if name == "__get__" or func in (Tensor.as_subclass, nn.Parameter):
            return found
        return tree_map(sent if on_gpu else brought_back, found)


def moved(thing: Any) -> Any:
    """A prior, network or pipeline whose buffers and tensors lie on the GPU; its weights do in any case."""
    parts = thing.components.values() if hasattr(thing, "components") else [thing, *vars(thing).values()]
    for module in (part for part in parts if isinstance(part, nn.Module)):
        for each in module.modules():
            for name, buffer in each._buffers.items():
                each._buffers[name] = sent(buffer)
    if not isinstance(thing, nn.Module) and not hasattr(thing, "components"):
        for name, value in vars(thing).items():
            if isinstance(value, Tensor | dict):
                setattr(thing, name, tree_map(sent, value))
        thing.device = GPU
    return thing


@contextmanager
def pretended_gpu(monkeypatch: Any, atlas: Atlas) -> Iterator[None]:
    """Inside, this machine has a GPU, and the models of an atlas lie on it."""
    here = ModelBundle(atlas, "cpu")
    there = {name: moved(copy.deepcopy(getattr(here, name))) for name in ("encoder", "dictionary", "prior", "pipeline")}
    with monkeypatch.context() as patch:
        patch.setattr("torch.cuda.is_available", lambda: True)
        patch.setattr("torch.cuda.device_count", lambda: 1)
        for name, model in there.items():
            patch.setattr(ModelBundle, name, model)
        with PretendedGPU():
            yield
