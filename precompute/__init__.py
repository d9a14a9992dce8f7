"""The offline half: a recipe goes in, an atlas comes out, by stages that resume where they were stopped."""
