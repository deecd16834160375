"""Answer a question with LlamaIndex from passages in the order that a served release answers best with.

    vllm serve path/to/release --port 8000
    python examples/rag_llama_index.py path/to/release

With ropeway-reorder[llama-index] alone, import ropeway_reorder.llama_index.
"""

import sys

from llama_index.core import MockEmbedding, VectorStoreIndex
from llama_index.core.schema import TextNode
from served_model import NUM_SLOTS, QUESTION, answer, num_words, passages, tell, word_counts

from tasks.reorder import ChunkReorder
from tasks.reorder.llama_index import RopewayReorder


class WordCounts(MockEmbedding):
    def _get_text_embedding(self, text: str) -> list[float]:
        return word_counts(text)

    _get_query_embedding = _get_text_embedding


reorder = ChunkReorder.load(sys.argv[1])
how = reorder.how_to_serve()  # from serving_advice.json, if the release has one
tell(how)
index = VectorStoreIndex([TextNode(text=text) for text in passages(how)], embed_model=WordCounts(embed_dim=NUM_SLOTS))
found = index.as_retriever(similarity_top_k=how.k or 5).retrieve(QUESTION)
options = {"strategy": how.order, "count_tokens": num_words}
adapter = RopewayReorder(config=sys.argv[1], budget_tokens=how.budget_tokens, options=options)
ordered = adapter.postprocess_nodes(found)
print("ranks in prompt order:", [found.index(node) + 1 for node in ordered])
print(answer((node.text for node in ordered), how))
