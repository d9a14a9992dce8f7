"""Statistics that the authors of Conceptual Blindspots published (`__enriched.json`, one file per model) as an atlas.

`enriched` reads a file, `sides` works out whose energies are in it and refuses numbers that contradict each other,
`tables` makes the tables and the addresses of its images, `importing` writes the atlas.
"""
