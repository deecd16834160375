"""Answer a question with LangChain from passages in the order that a served release answers best with.

    vllm serve path/to/release --port 8000
    python examples/rag_langchain.py path/to/release

With ropeway-reorder[langchain] alone, import ropeway_reorder.langchain.
"""

import sys

from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import InMemoryVectorStore
from served_model import QUESTION, TEXTS, answer, word_counts

from tasks.reorder.langchain import RopewayReorder


class WordCounts(Embeddings):
    def embed_query(self, text: str) -> list[float]:
        return word_counts(text)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [word_counts(text) for text in texts]


found = InMemoryVectorStore.from_texts(TEXTS, WordCounts()).as_retriever(search_kwargs={"k": 5}).invoke(QUESTION)
ordered = RopewayReorder(sys.argv[1]).transform_documents(found)
print("ranks in prompt order:", [found.index(document) + 1 for document in ordered])
print(answer(document.page_content for document in ordered))
