"""Answer a question with a Haystack pipeline from passages in the order that a served release answers best with.

    vllm serve path/to/release --port 8000
    python examples/rag_haystack.py path/to/release

OPENAI_BASE_URL names another server with this API. With ropeway-reorder[haystack] alone, import ropeway_reorder.haystack.
"""

import json
import os
import sys
from urllib.request import Request, urlopen

from haystack import Document, Pipeline
from haystack.components.retrievers import InMemoryBM25Retriever
from haystack.document_stores.in_memory import InMemoryDocumentStore

from tasks.reorder.haystack import RopewayReorder

SERVER = os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1")
TEXTS = [
    f"The {name} bridge is {60 + 7 * i} m long." for i, name in enumerate(("north", "south", "old", "iron", "mill", "moon"))
]


def ask(prompt: str) -> str:
    model = json.load(urlopen(f"{SERVER}/models"))["data"][0]["id"]
    body = json.dumps({"model": model, "prompt": prompt, "max_tokens": 32}).encode()
    return json.load(urlopen(Request(f"{SERVER}/completions", body, {"Content-Type": "application/json"})))["choices"][0][
        "text"
    ]


question = "How long is the iron bridge?"
store = InMemoryDocumentStore()
store.write_documents([Document(content=text) for text in TEXTS])
pipeline = Pipeline()
pipeline.add_component("retriever", InMemoryBM25Retriever(store, top_k=5))
pipeline.add_component("reorder", RopewayReorder(sys.argv[1]))
pipeline.connect("retriever.documents", "reorder.documents")
ran = pipeline.run({"retriever": {"query": question}}, include_outputs_from={"retriever"})
found, ordered = ran["retriever"]["documents"], ran["reorder"]["documents"]
print("ranks in prompt order:", [found.index(document) + 1 for document in ordered])
print(ask("\n\n".join([*(document.content for document in ordered), f"Question: {question}", "Answer:"])))
