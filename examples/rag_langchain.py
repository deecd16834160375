"""Answer a question with LangChain from passages in the order that a served release answers best with.

    vllm serve path/to/release --port 8000
    python examples/rag_langchain.py path/to/release

With ropeway-reorder[langchain] alone, import ropeway_reorder.langchain.
"""

import sys

from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import InMemoryVectorStore
from served_model import QUESTION, answer, num_words, passages, tell, word_counts

from tasks.reorder.langchain import RopewayReorder


class WordCounts(Embeddings):
    def embed_query(self, text: str) -> list[float]:
        return word_counts(text)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [word_counts(text) for text in texts]


reorder = RopewayReorder(sys.argv[1])
how = reorder.reorder.how_to_serve()  # from serving_advice.json, if the release has one
tell(how)
store = InMemoryVectorStore.from_texts(passages(how), WordCounts())
found = store.as_retriever(search_kwargs={"k": how.k or 5}).invoke(QUESTION)
ordered = reorder.transform_documents(found, budget_tokens=how.budget_tokens, count_tokens=num_words, strategy=how.order)
print("ranks in prompt order:", [found.index(document) + 1 for document in ordered])
print(answer((document.page_content for document in ordered), how))
