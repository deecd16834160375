"""The search for LongRoPE's factors: pure functions, which neither load a model nor know a cluster.

space       the candidates: monotone lists of factors within bounds, as few numbers (compact) or one a pair (full)
seeds       where the search starts: linear, NTK, YaRN, and NTK at each critical pair
asked       what cannot be searched by what was asked for alone
samples     what a candidate is scored on
scores      what was measured, and how candidates compare on the same samples
proposals   the next candidates, from (seed, generation, results so far)
race        the whole search: two samples first, then all; `measure` is given from outside
decision    whether what was found beats the closed forms on needles that the search never saw

`ray_jobs.search_rope` measures on actors and makes the artifact.
"""
