"""Put retrieved passages into prompt order. Importable without torch, ray, transformers or prefect."""

from tasks.reorder.apply import ChunkReorder, arrange_file
from tasks.reorder.arrangement import Arrangement
from tasks.reorder.options import ReorderOptions
from tasks.reorder.permutations import permutation
from tasks.reorder.serving import HowToServe

__all__ = ["Arrangement", "ChunkReorder", "HowToServe", "ReorderOptions", "arrange_file", "permutation"]
