"""The atlas on disk: a folder of parquet, npy, FAISS and webp files that any tool can read.

`schema` says what is in it, `writer` writes it all or nothing, `reader` opens it read-only and lazily, `verify` checks
every file. Importing this package loads numpy, pandas and pyarrow, never torch.
"""

from engine.atlas.reader import Atlas
from engine.atlas.schema import AtlasInfo, Source
from engine.atlas.writer import AtlasWriter

__all__ = ["Atlas", "AtlasInfo", "AtlasWriter", "Source"]
