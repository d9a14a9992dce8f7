"""`python -m precompute`, and the console script `blindspot-atlas`."""

from __future__ import annotations

from precompute.cli import app, demo, main
from precompute.serve import open_demo


def console() -> None:
    """Run the console script: the commands of `python -m precompute`, except that `demo` opens the demo."""
    rebuild = next(command for command in app.registered_commands if command.callback is demo)
    rebuild.name = "build-demo"
    app.command(name="demo")(open_demo)
    main()


if __name__ == "__main__":
    main()
