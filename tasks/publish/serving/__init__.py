"""The serving contract: what other programs make of a release's files.

What is known of each program, and at which version, is in `data_schemas.consumers`.

rules         each consumer's reading of config.json: context length and rotary frequencies, from its source
formulas      the frequencies that these rules compute
contract      these readings against what was trained; a difference blocks a release
next_tokens   log-probabilities recorded before saving, at positions below, at and beyond the old window
runners       the programs themselves, each in an environment of its own, and their probe scripts
served        the answers of a consumer that was run, against the recording
ran           the consumers that ran before publishing, for the card
llama_cpp     whether its converter takes a tokenizer
table, gguf   the servers and commands that a model card lists
"""
