"""Extend or chunk? The same questions asked in several ways of getting text into the prompt, and what the answers advise.

questions/       questions about documents, made without a model, or read from a file
plan.py          the ways to compare, and what can be told before anything is asked
calls.py         one call of a model, and what it costs
prompting.py     texts as the tokens of a call
retrieval.py     passages of a document, ranked for a question
answering.py     one question answered in one way
routing.py       the cheap way first, and the long one where the answer is unlikely
results.py       means, paired comparisons, and the cheapest way that is not shown to be worse
sentences.py  table.py  plot.py         the result for people
"""
