"""One module per stage of a recipe: images -> tokens -> codes -> energies -> map, index, words -> atlas."""
