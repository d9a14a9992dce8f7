"""Whole modules of overcomplete, as `torch.save(sae)` writes them, read without overcomplete and without running code.

Such a file names a class for every part and holds the part's attributes. Here each name on the list below is read as a
`SavedObject`, a class that keeps the attributes it is given and can do nothing else; torch's weights-only reader
refuses every other name before it is built. The parameters and buffers in the attributes are the state dict.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, ClassVar

import torch
from torch import Tensor

from engine.errors import BlindspotError

ALLOWED = {
    "overcomplete.sae": (
        *("topk_sae.TopKSAE", "rasae.RATopKSAE", "batchtopk_sae.BatchTopKSAE", "jump_sae.JumpSAE", "rasae.RAJumpSAE"),
        *("dictionary.DictionaryLayer", "archetypal_dictionary.RelaxedArchetypalDictionary"),
        *("modules.MLPEncoder", "modules.TieableEncoder"),
        *(f"dictionary.normalize_{norm}" for norm in ("l2", "max_l2", "l1", "max_l1", "identity")),
        *(f"kernels.{name}_kernel" for name in ("rectangle", "gaussian", "triangular", "cosine")),
        *(f"kernels.{name}_kernel" for name in ("epanechnikov", "quartic", "silverman", "cauchy")),
    ),
    "torch.nn": (
        *("modules.container.Sequential", "modules.container.ModuleList", "parallel.data_parallel.DataParallel"),
        *("modules.linear.Linear", "modules.linear.Identity", "modules.activation.ReLU"),
        *("modules.normalization.LayerNorm", "modules.batchnorm.BatchNorm1d"),
    ),
}
"""What overcomplete 0.3.0 saves in the autoencoders that can be imported; RA-SAE-DINOv2-32k is made of these too."""
MOST_PARTS = 200
"""More modules than any of these autoencoders has; a file may nest one in itself."""


class SavedObject:
    """An object of a saved module: its attributes."""

    __slots__ = ("state",)
    name: ClassVar[str] = ""
    """Name of the class that was saved."""

    def __setstate__(self, state: Any) -> None:
        self.state = state


def _saved_class(path: str) -> type[SavedObject]:
    name = path.rpartition(".")[2]
    return type(name, (SavedObject,), {"__slots__": (), "name": name})


ALLOWED_CLASSES: list[Any] = [
    (_saved_class(f"{root}.{part}"), f"{root}.{part}") for root, parts in ALLOWED.items() for part in parts
]


def reading_saved_modules() -> AbstractContextManager[None]:
    """While it lasts, `torch.load(weights_only=True)` reads objects of the listed names as `SavedObject`s."""
    return torch.serialization.safe_globals(ALLOWED_CLASSES)


def flatten(saved: Any, where: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state dict of a saved module, by dotted name as `state_dict()` has it, and what else its attributes say:
    `class`, `top_k` of a TopK, `running_threshold` of a BatchTopK, `delta` and `normalization` of the dictionary.

    A BatchTopK's `top_k` counts the codes of a batch, not of a token, and is left out. `where` names the file.

    Raises
    ------
    BlindspotError
        When the attributes are not those of a module.
    """
    if saved.name == "DataParallel":
        saved = _table(saved, "_modules", where).get("module")
    tensors: dict[str, Tensor] = {}
    waiting, visited = [("", saved)], 0
    while waiting:
        prefix, part = waiting.pop()
        visited += 1
        if visited > MOST_PARTS:
            raise _not_an_autoencoder(where)
        for kind in ("_parameters", "_buffers"):
            found = _table(part, kind, where)
            tensors |= {prefix + name: value for name, value in found.items() if isinstance(value, Tensor)}
        waiting += [(f"{prefix}{name}.", inner) for name, inner in _table(part, "_modules", where).items()]
    return tensors, _attributes(saved, where)


def _attributes(saved: Any, where: str) -> dict[str, Any]:
    said: dict[str, Any] = {"class": saved.name}
    if saved.name in ("TopKSAE", "RATopKSAE"):
        said["top_k"] = saved.state.get("top_k")
    if saved.name == "BatchTopKSAE":
        said["running_threshold"] = saved.state.get("running_threshold")
    dictionary = _table(saved, "_modules", where).get("dictionary")
    if dictionary is not None:
        said["delta"] = dictionary.state.get("delta")
        function = dictionary.state.get("normalization")
        said["normalization"] = getattr(function, "name", "").removeprefix("normalize_") or None
    return {key: value for key, value in said.items() if value is not None}


def _table(part: Any, kind: str, where: str) -> dict[str, Any]:
    """One of a module's tables (`_parameters`, `_buffers`, `_modules`), by name."""
    attributes = getattr(part, "state", None) if isinstance(part, SavedObject) else None
    table = attributes.get(kind) if isinstance(attributes, dict) else None
    if not isinstance(table, dict) or not all(isinstance(name, str) for name in table):
        raise _not_an_autoencoder(where)
    return table


def _not_an_autoencoder(where: str) -> BlindspotError:
    return BlindspotError(f"{where} is not an autoencoder as overcomplete saves it; get an intact copy.")


def contains_code(where: str, found: str | None) -> BlindspotError:
    """The error for a file that is a pickle of objects, `found` the dotted name of one of them."""
    what = f"objects ({found})" if found else "objects"
    return BlindspotError(
        f"{where} is a pickle of {what}, which could run code, so it was not opened; where you trust it, load it with "
        "the library that wrote it and save its tensors, "
        'torch.save({"state_dict": sae.state_dict(), "top_k": sae.top_k}, "state.pt"), those of sae.module if it is a '
        "DataParallel, and with its running_threshold if it is a BatchTopK."
    )
