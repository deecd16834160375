"""Word n-grams: `word_ngrams` hashes those of a text, `document_index` finds the ones that some documents have, and
`passages` shows where. Ingest compares documents by them, and packing measures what is left of held-out text in training."""
