"""Answer a question with a Haystack pipeline from passages in the order that a served release answers best with.

    vllm serve path/to/release --port 8000
    python examples/rag_haystack.py path/to/release

With ropeway-reorder[haystack] alone, import ropeway_reorder.haystack.
"""

import sys

from haystack import Document, Pipeline
from haystack.components.retrievers import InMemoryBM25Retriever
from haystack.document_stores.in_memory import InMemoryDocumentStore
from served_model import QUESTION, TEXTS, answer

from tasks.reorder.haystack import RopewayReorder

store = InMemoryDocumentStore()
store.write_documents([Document(content=text) for text in TEXTS])
pipeline = Pipeline()
pipeline.add_component("retriever", InMemoryBM25Retriever(store, top_k=5))
pipeline.add_component("reorder", RopewayReorder(sys.argv[1]))
pipeline.connect("retriever.documents", "reorder.documents")
ran = pipeline.run({"retriever": {"query": QUESTION}}, include_outputs_from={"retriever"})
found, ordered = ran["retriever"]["documents"], ran["reorder"]["documents"]
print("ranks in prompt order:", [found.index(document) + 1 for document in ordered])
print(answer(document.content for document in ordered))
