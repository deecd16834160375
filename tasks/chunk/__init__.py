"""Chunk: how one document becomes chunks of at most `max_tokens` tokens. `chunker.py` runs the steps:

1. Encode the text once and note where it can be cut between tokens: `encoding.py`, faster by words with `words.py`.
2. Find headings, paragraphs and definitions: `structure.py`, with `format_guess.py`, `headings.py` and `definitions.py`.
3. Choose the cuts, strongest boundary first: `cuts.py`.
4. Find sentences where a paragraph has to be cut: `sentences.py`, with `sentence_rules.py` and `languages.py`.
5. With an embedding model, prefer the sentence where the topic changes: `similarity.py`.
"""
