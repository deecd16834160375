"""Answer a question with LlamaIndex from passages in the order that a served release answers best with.

    vllm serve path/to/release --port 8000
    python examples/rag_llama_index.py path/to/release

With ropeway-reorder[llama-index] alone, import ropeway_reorder.llama_index.
"""

import sys

from llama_index.core import MockEmbedding, VectorStoreIndex
from llama_index.core.schema import TextNode
from served_model import NUM_SLOTS, QUESTION, TEXTS, answer, word_counts

from tasks.reorder.llama_index import RopewayReorder


class WordCounts(MockEmbedding):
    def _get_text_embedding(self, text: str) -> list[float]:
        return word_counts(text)

    _get_query_embedding = _get_text_embedding


index = VectorStoreIndex([TextNode(text=text) for text in TEXTS], embed_model=WordCounts(embed_dim=NUM_SLOTS))
found = index.as_retriever(similarity_top_k=5).retrieve(QUESTION)
ordered = RopewayReorder(config=sys.argv[1]).postprocess_nodes(found)
print("ranks in prompt order:", [found.index(node) + 1 for node in ordered])
print(answer(node.text for node in ordered))
