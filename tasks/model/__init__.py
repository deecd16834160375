"""The model: its base, whether it is supported, and the plan of its rotary embedding. Runs no cluster job.

base_model         the base, found, fingerprinted and loaded; supported refuses what is no causal language model of text
vocabulary         whether every id of the tokenizer has a row in the embeddings
stated_sizes       layers, heads and window by the base's config.json alone, before transformers is loaded
base_lengths       how long a base works, by its config or as the user states it
weight_files       what the headers of its weight files say; weight_fit compares that with the model of its config.json
quantised          bases that are refused because their weights are quantised; base_code: because they need code of their own
rope_config        how a config.json states a rotary embedding: read from a base, written into a release
rope_methods       what each scaling method makes of a base, or why it cannot
rope_keys          keys that no method computes: carried, or refused by name; reading_notes says how the base was read
rope_frequencies   the frequencies of each method
rope_use           the features of a config.json that `data_schemas.consumers` has claims about
rope_plan          `plan_rope`, which puts these together
extended           the models that are trained, compared and published
demo_base/         weights and tokenizer of the base that comes with Ropeway; `tools/demo_base` made them
"""
