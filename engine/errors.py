"""The one exception a user is meant to read."""

from __future__ import annotations


class BlindspotError(Exception):
    """Bad input, said in one sentence: what is wrong, where, and what to do about it.

    The command line prints the message and exits with code 1; the app shows it in place of the page's content.
    Anything else that is raised is a defect of ours and keeps its traceback.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(printable(message))


def printable(text: str) -> str:
    """Text that every file and console takes: bytes of a file name that are not UTF-8 become escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
