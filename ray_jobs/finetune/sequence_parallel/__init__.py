"""One packed row over several workers, exactly: where it is cut, what is sent, and attention on the parts.

cuts        where a row is cut: equal cost, few bytes
halo        which keys and values each worker needs of the workers before it
exchange    sending them while the local part is computed, and their gradients back
answering   a worker that vanishes ends the waiting with a sentence
all_to_all  heads in place of tokens, for layers that attend in full
attention   attention of one worker's tokens
"""
