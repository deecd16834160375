"""Answer a question with LlamaIndex from passages in the order that a served release answers best with.

    vllm serve path/to/release --port 8000
    python examples/rag_llama_index.py path/to/release

OPENAI_BASE_URL names another server with this API. With ropeway-reorder[llama-index] alone, import ropeway_reorder.llama_index.
"""

import json
import os
import re
import sys
from urllib.request import Request, urlopen
from zlib import crc32

from llama_index.core import MockEmbedding, VectorStoreIndex
from llama_index.core.schema import TextNode

from tasks.reorder.llama_index import RopewayReorder

SERVER = os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1")
TEXTS = [
    f"The {name} bridge is {60 + 7 * i} m long." for i, name in enumerate(("north", "south", "old", "iron", "mill", "moon"))
]


class Words(MockEmbedding):  # in place of an embedding model: counts of hashed words
    def _get_text_embedding(self, text: str) -> list[float]:
        slots = [crc32(word.encode()) % 512 for word in re.findall(r"\w+", text.lower())]
        return [float(slots.count(slot)) for slot in range(512)]

    _get_query_embedding = _get_text_embedding


def ask(prompt: str) -> str:
    model = json.load(urlopen(f"{SERVER}/models"))["data"][0]["id"]
    body = json.dumps({"model": model, "prompt": prompt, "max_tokens": 32}).encode()
    return json.load(urlopen(Request(f"{SERVER}/completions", body, {"Content-Type": "application/json"})))["choices"][0][
        "text"
    ]


question = "How long is the iron bridge?"
index = VectorStoreIndex([TextNode(text=text) for text in TEXTS], embed_model=Words(embed_dim=512))
found = index.as_retriever(similarity_top_k=5).retrieve(question)
ordered = RopewayReorder(config=sys.argv[1]).postprocess_nodes(found)
print("ranks in prompt order:", [found.index(node) + 1 for node in ordered])
print(ask("\n\n".join([*(node.text for node in ordered), f"Question: {question}", "Answer:"])))
