"""Texts in many words, from a seed, and documents made of them."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from transformers import PreTrainedTokenizerFast

from data_schemas.ledger import Ledger, LedgerLine, Step
from data_schemas.retrieval_params import RetrievalFamily
from data_schemas.tables import DOCUMENTS
from tasks.retrieval.families.negatives import Negatives
from tasks.retrieval.families.registry import MAKERS
from tasks.retrieval.families.request import Request
from tasks.retrieval.fitting import Fitted, fit
from tasks.retrieval.rendering import Renderer
from tasks.retrieval.settings import name_cost, writable_signs, writable_symbols
from tasks.retrieval.text_supply import SourceText, TextSupply
from tasks.tokens.encoding import encoder_of
from tasks.tokens.special_tokens import special_tokens

ALPHABETS = {
    "latin": ("etaoinshrdlucmfw", " ", ". "),
    "cyrillic": ("оеаинтсрвлкмдпуя", " ", ". "),
    "chinese": (
        "的一是不了在人有我他這個們中來上大為和國地到以說時要就出會可也你對生能而子那得于著下自之年過發後作裏",
        "",
        "。",
    ),
}


def prose(seed: int, num_chars: int, script: str = "latin") -> str:
    """Paragraphs of sentences of 5 to 12 words, each word drawn from a few thousand."""
    letters, between, end = ALPHABETS[script]
    vocabulary = _vocabulary(script)
    rng = np.random.default_rng([seed, len(letters)])
    paragraphs, size = [], 0
    while size < num_chars:
        sentences = []
        for _ in range(int(rng.integers(2, 7))):
            picked = rng.integers(0, len(vocabulary), int(rng.integers(5, 13))).tolist()
            sentences.append(between.join(vocabulary[i] for i in picked).capitalize() + end)
        paragraphs.append("".join(sentences).strip())
        size += len(paragraphs[-1]) + 2
    return "\n\n".join(paragraphs)[:num_chars]


@cache
def _vocabulary(script: str) -> list[str]:
    letters, between, _ = ALPHABETS[script]
    rng = np.random.default_rng(len(letters))
    longest = 9 if between else 3
    return ["".join(rng.choice(list(letters), int(rng.integers(2, longest)))) for _ in range(3000)]


def code(seed: int, num_chars: int) -> str:
    """Lines as of a program: names of several parts, and lines of signs or few letters between them."""
    rng = np.random.default_rng(seed)
    vocabulary = _vocabulary("latin")
    lines, size = [], 0
    while size < num_chars:
        a, b, c, d = (vocabulary[i] for i in rng.integers(0, len(vocabulary), 4).tolist())
        forms = (
            f"def {a}_{b}(self, {c}): return {d}{int(rng.integers(100))}",
            f"    {a}.{b} = {c}({d}, is_{a}=True)",
            f"    # {a} {b} {c} {d}",
            "    )",
            '    """',
            "else:",
        )
        lines.append(forms[int(rng.integers(len(forms)))])
        size += len(lines[-1]) + 1
    return "\n".join(lines)[:num_chars]


def sources(number: int, num_chars: int, script: str = "latin") -> list[SourceText]:
    return [SourceText(f"d{i}", prose(i, num_chars, script), "CC0-1.0", "en") for i in range(number)]


class Maker:
    """Documents of any family with one tokenizer, from the given texts or from texts of 24,000 characters."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        length: int,
        script: str = "latin",
        questions: int = 16,
        texts: list[SourceText] | None = None,
    ) -> None:
        self.encoder, self.special, self.length = encoder_of(tokenizer), special_tokens(tokenizer), length
        self.renderer = Renderer(self.encoder, self.special, None)
        texts = texts or sources(8, max(24_000, 12 * length), script)
        sample = next(self.encoder.encode([texts[0].text[:4000]]))
        self.chars_per_token = len(sample.text) / len(sample.ids)
        num_chars = int(length * self.chars_per_token)
        self.supply = TextSupply(texts, np.random.default_rng(0))
        negatives = Negatives(self.supply.documents, max(40, num_chars // 16))
        names = writable_symbols(self.encoder), writable_signs(self.encoder), name_cost(self.encoder, self.chars_per_token)
        self.request = Request(self.supply, negatives, questions, num_chars, *names)

    def make(self, family: RetrievalFamily, seed: int = 0) -> Fitted:
        def draft(num_chars: int) -> Any:
            return MAKERS[family](self.request, num_chars, np.random.default_rng([seed, 1]))

        return fit(draft, self.renderer, self.length, self.chars_per_token)


def write_parts(folder: Path, num_parts: int, per_part: int, num_chars: int, first_source: str = "x") -> dict[str, Any]:
    """A documents artifact in some parts; the first document of each is held out. Returns the summary.

    `first_source` is the source of the first part; that of the others is x.
    """
    total, lines = 0, []
    for part in range(num_parts):
        rows, source = [], "x" if part else first_source
        for number in range(per_part):
            text = prose(part * per_part + number, num_chars)
            row = {"doc_id": f"p{part}d{number}", "text": text, "source_uri": f"{part}/{number}", "source": source, "record": 0}
            row |= {"byte_start": None, "byte_end": None, "num_bytes": len(text.encode()), "format": "plain", "language": "en"}
            row |= {"content_hash": "x", "licence": "CC0-1.0", "work": f"{part}/{number}"}
            rows.append(row | {"split": "train" if number else "heldout"})
        name = f"documents-{part:05d}-of-{num_parts:05d}.parquet"
        pq.write_table(pa.Table.from_pylist(rows, schema=DOCUMENTS), folder / name)
        sizes = [int(row["num_bytes"]) for row in rows]
        counts: dict[Step, list[int]] = {"read": sizes, "held_out": sizes[:1], "remaining": sizes[1:]}
        lines += [
            LedgerLine(step=step, source=source, documents=len(counted), bytes=sum(counted)) for step, counted in counts.items()
        ]
        total += sum(sizes)
    return {"num_documents": num_parts * per_part, "num_bytes": total, "ledger": Ledger.of(lines).to_json()}
