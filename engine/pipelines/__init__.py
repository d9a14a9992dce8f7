"""Pipelines of diffusers that draw the images of a model, as the recipe and the atlas describe them."""
