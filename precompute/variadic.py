"""Options that take several values in a row, `--targets 5 6 7`, which click only knows as `--targets 5 --targets 6`."""

from __future__ import annotations

from collections.abc import Iterator

import typer.core
from typer import Context


class VariadicCommand(typer.core.TyperCommand):
    """A command without positional arguments, whose repeatable options may be given once for all their values."""

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        """Repeat an option's name before each of its further values, and parse as ever."""
        names = {name for option in self.params if getattr(option, "multiple", False) for name in option.opts}
        return super().parse_args(ctx, list(_repeated(args, names)))


def _repeated(words: list[str], names: set[str]) -> Iterator[str]:
    """The words, with the last option's name put before every value after its first."""
    name, values = "", 0
    for word in words:
        if _is_option(word):
            name, values = word.split("=")[0], int("=" in word)
        else:
            values += 1
            if name in names and values > 1:
                yield name
        yield word


def _is_option(word: str) -> bool:
    """Whether a word names an option; a negative number does not."""
    return word.startswith("-") and not word[1:2].isdigit() and word[1:2] != "."
