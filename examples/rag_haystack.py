"""Answer a question with a Haystack pipeline from passages in the order that a served release answers best with.

    vllm serve path/to/release --port 8000
    python examples/rag_haystack.py path/to/release

With ropeway-reorder[haystack] alone, import ropeway_reorder.haystack.
"""

import sys

from haystack import Document, Pipeline
from haystack.components.retrievers import InMemoryBM25Retriever, InMemoryEmbeddingRetriever
from haystack.document_stores.in_memory import InMemoryDocumentStore
from served_model import QUESTION, answer, num_words, passages, tell, word_counts

from tasks.reorder import ChunkReorder
from tasks.reorder.haystack import RopewayReorder

how = ChunkReorder.load(sys.argv[1]).how_to_serve()  # from serving_advice.json, if the release has one
tell(how)
store = InMemoryDocumentStore()
store.write_documents([Document(content=text, embedding=word_counts(text)) for text in passages(how)])
pipeline = Pipeline()
if how.retriever == "embedding":
    asked = {"query_embedding": word_counts(QUESTION)}
    pipeline.add_component("retriever", InMemoryEmbeddingRetriever(store, top_k=how.k or 5))
else:
    asked = {"query": QUESTION}
    pipeline.add_component("retriever", InMemoryBM25Retriever(store, top_k=how.k or 5))
options = {"strategy": how.order, "count_tokens": num_words}
pipeline.add_component("reorder", RopewayReorder(sys.argv[1], how.budget_tokens, options))
pipeline.connect("retriever.documents", "reorder.documents")
ran = pipeline.run({"retriever": asked}, include_outputs_from={"retriever"})
found, ordered = ran["retriever"]["documents"], ran["reorder"]["documents"]
print("ranks in prompt order:", [found.index(document) + 1 for document in ordered])
print(answer((document.content for document in ordered), how))
