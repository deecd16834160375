"""Where in its prompt a retrieved passage should stand; importable without torch, ray, transformers or prefect."""

from tasks.reorder.apply import ChunkReorder, reorder_file
from tasks.reorder.permutations import permutation

__all__ = ["ChunkReorder", "permutation", "reorder_file"]
