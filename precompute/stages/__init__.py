"""The stages of a build, one file each: its parameters and inputs, what it runs, how its result is read."""
