"""Answer a question with LangChain from passages in the order that a served release answers best with.

    vllm serve path/to/release --port 8000
    python examples/rag_langchain.py path/to/release

OPENAI_BASE_URL names another server with this API. With ropeway-reorder[langchain] alone, import ropeway_reorder.langchain.
"""

import json
import os
import re
import sys
from urllib.request import Request, urlopen
from zlib import crc32

from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import InMemoryVectorStore

from tasks.reorder.langchain import RopewayReorder

SERVER = os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1")
TEXTS = [
    f"The {name} bridge is {60 + 7 * i} m long." for i, name in enumerate(("north", "south", "old", "iron", "mill", "moon"))
]


class Words(Embeddings):  # in place of an embedding model: counts of hashed words
    def embed_query(self, text: str) -> list[float]:
        slots = [crc32(word.encode()) % 512 for word in re.findall(r"\w+", text.lower())]
        return [float(slots.count(slot)) for slot in range(512)]

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]


def ask(prompt: str) -> str:
    model = json.load(urlopen(f"{SERVER}/models"))["data"][0]["id"]
    body = json.dumps({"model": model, "prompt": prompt, "max_tokens": 32}).encode()
    return json.load(urlopen(Request(f"{SERVER}/completions", body, {"Content-Type": "application/json"})))["choices"][0][
        "text"
    ]


question = "How long is the iron bridge?"
found = InMemoryVectorStore.from_texts(TEXTS, Words()).as_retriever(search_kwargs={"k": 5}).invoke(question)
ordered = RopewayReorder(sys.argv[1]).transform_documents(found)
print("ranks in prompt order:", [found.index(document) + 1 for document in ordered])
print(ask("\n\n".join([*(document.page_content for document in ordered), f"Question: {question}", "Answer:"])))
