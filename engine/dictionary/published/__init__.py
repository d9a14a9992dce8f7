"""Dictionaries that others published, opened without running anything they contain: overcomplete (TopK, BatchTopK,
RA-SAE), OSU-NLP saev, EleutherAI sparsify, dictionary_learning and SAELens. `import_dictionary` makes them ours."""

from engine.dictionary.published.conversion import Imported, Options
from engine.dictionary.published.importing import (
    AUTO,
    READERS,
    ImportReport,
    import_dictionary,
    open_dictionary,
    read_published,
)

__all__ = [
    "AUTO",
    "READERS",
    "ImportReport",
    "Imported",
    "Options",
    "import_dictionary",
    "open_dictionary",
    "read_published",
]
