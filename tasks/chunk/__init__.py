"""Chunk: how one document becomes chunks of at most `max_tokens` tokens. `chunker.py` runs the steps:

1. Encode the text once and note where it can be cut between tokens: `encoding.py`, faster by words with `words.py`.
2. Find headings, blocks and definitions: `structure.py`, with `format_guess.py`, `headings.py`, `chapters.py` and `definitions.py`.
3. Choose the cuts, strongest boundary first: `cuts.py`; never inside a grapheme cluster: `graphemes.py`.
4. Where a block has to be cut (`blocks.py`), find its lines: `lines.py`.
5. Find sentences: `sentences.py`, with `sentence_rules.py` and `languages.py`; inside them clauses and words: `words_inside.py`.
6. With an embedding model, prefer the sentence where the topic changes: `similarity.py`.
"""
