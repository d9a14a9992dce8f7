"""`python -m precompute`."""

from precompute.cli import main

main()
