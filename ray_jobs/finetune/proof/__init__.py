"""Whether a base can be extended, proven on a small model of its own configuration.

shrink    the base's configuration with few layers and small widths; what decides the attention stays
tiny      that model with random weights, and how it is run with Ropeway's attention and with its own
checks    what must hold: one function each
prove     all of them on one configuration, and the refusal of a base that fails

Runs on the CPU in seconds, without the base's weights.
"""
