"""Questions about long documents, each with its evidence and a control without it.

    held-out documents ──make_questions──▶ local, far_apart, spread
    a file of questions ──read_questions──▶ given

No model makes them, and they work for documents in any language; the questions themselves are in English. Real words of the document are
asked for where it has unique ones. Otherwise sentences are planted, as passkeys are, with names and numbers that the document lacks.
"""

from tasks.advise.questions.make import MIN_TOKENS, make_questions
from tasks.advise.questions.qa_file import read_questions
from tasks.advise.questions.question import Question, Questions, score

__all__ = ["MIN_TOKENS", "Question", "Questions", "make_questions", "read_questions", "score"]
