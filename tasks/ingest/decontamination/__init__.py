"""Step 7: which training documents contain evaluated text. `evaluated_prompts` reads the prompts, `index_building` collects
their n-grams and those of held-out documents into an `ngram_index`, and `decontaminate` compares documents with it."""
