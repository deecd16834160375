"""Text as token ids, for training and evaluation alike.

`encoding` encodes texts, fast for byte-level tokenizers with `words`, and `lines` those that share lines. `surface` gives the text of
ids, `text_start` knows what some tokenizers put before a text, `special_tokens` says where BOS and EOS are, and `chat` splits a chat
template at its messages.
"""
