"""Which way of getting text into the prompt serves a corpus and a model best, measured on the same questions."""
