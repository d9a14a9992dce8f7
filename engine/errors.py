"""The one exception a user is meant to read."""

from __future__ import annotations


class BlindspotError(Exception):
    """Bad input, said in one sentence: what is wrong, where, and what to do about it.

    The command line prints the message and exits with code 1; the app shows it in place of the page's content.
    Anything else that is raised is a defect of ours and keeps its traceback.
    """
