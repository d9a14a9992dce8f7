"""Statistics that the authors of Conceptual Blindspots published (`__enriched.json`, one file per model) as an atlas.

`enriched` reads a file, `sides` works out whose energies are in it and refuses numbers that contradict each other,
`links` makes addresses of its images, `tables` and `importing` write the atlas.
"""
