"""The serving contract: what other programs make of a release's files.

rules         each consumer's reading of config.json: context length and rotary frequencies, from its source
contract      these readings against what was trained; a difference blocks a release
next_tokens   log-probabilities recorded before saving, at positions below, at and beyond the old window
consumers     the programs themselves, each in an environment of its own, and their probe scripts
served        what a consumer that really ran answered, against the recording
table, gguf   what a model card says about it
"""
