"""The class that a class-conditional prior draws."""

from __future__ import annotations

from engine.errors import BlindspotError


def class_label(label: int | None, classes: int | None, what: str) -> int | None:
    """The label, once it is known to be a class.

    Parameters
    ----------
    label
        None for no given class.
    classes
        How many there are; None for a network without.
    what
        The network, for the message.

    Raises
    ------
    BlindspotError
        If there is no such class.
    """
    if label is not None and not 0 <= label < (classes or 0):
        choice = f"choose 0 to {classes - 1}" if classes else "it is unconditional, so give none"
        raise BlindspotError(f"This {what} has no class {label}: {choice}.")
    return label
