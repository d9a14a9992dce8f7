"""What is said of a file that holds code."""

from __future__ import annotations

from engine.errors import BlindspotError


def refuse_code(where: str, found: str | None) -> BlindspotError:
    """The error for a pickle of objects.

    Parameters
    ----------
    where
        The file.
    found
        Dotted name of one of the objects, if it is known.
    """
    what = f"objects ({found})" if found else "objects"
    return BlindspotError(
        f"{where} is a pickle of {what}, which could run code, so it was not opened; where you trust it, load it with "
        "the library that wrote it and save its tensors, "
        'torch.save({"state_dict": sae.state_dict(), "top_k": sae.top_k}, "state.pt"), those of sae.module if it is a '
        "DataParallel, and with its running_threshold if it is a BatchTopK."
    )
