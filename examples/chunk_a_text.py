"""Cut a text into chunks of at most 60 tokens, at headings, paragraphs and sentences, and see that they tile it exactly.

    python examples/chunk_a_text.py

The tokenizer is the shipped demo base's; any fast tokenizer of transformers or tokenizers works.
"""

from data_schemas.params import ChunkingParams, ModelParams
from tasks.chunk.chunker import Chunker
from tasks.model.base_model import load_tokenizer

TEXT = """# Rotary position embeddings

A rotary embedding turns each pair of channels by an angle that grows with the position. Low frequencies turn slowly.

## Why a longer context fails

Beyond its window a model meets angles that it never saw in training. Attention scores then leave the range that the
model has learned, and perplexity rises within a few hundred tokens. Scaling the frequencies keeps the angles in range.

## What training adds

A few hundred steps on long documents let the model use the new distances well.
"""


def main() -> None:
    tokenizer = load_tokenizer(ModelParams(base="demo", target_length=2048))
    chunks = Chunker(tokenizer, ChunkingParams(max_tokens=60)).chunk(TEXT, format="markdown")
    for chunk in chunks:
        start = TEXT[chunk.char_start : chunk.char_end].strip().splitlines()[0]
        print(
            f"{chunk.char_start:4}-{chunk.char_end:4}  {chunk.num_tokens:3} tokens  {' > '.join(chunk.heading_path)}: {start[:40]}"
        )
    whole = "".join(TEXT[chunk.char_start : chunk.char_end] for chunk in chunks)
    print(f"{len(chunks)} chunks, joined equal to the text: {whole == TEXT}")


if __name__ == "__main__":
    main()
