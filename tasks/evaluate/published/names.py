"""Names of the published tasks, as rows and reports have them. Ropeway's own tasks have other names."""

from __future__ import annotations

NOT_COMPARABLE = "not comparable with published figures"
RULER_CONFIGURATIONS = (
    "niah_single_1",
    "niah_single_2",
    "niah_single_3",
    "niah_multikey_1",
    "niah_multikey_2",
    "niah_multikey_3",
    "niah_multivalue",
    "niah_multiquery",
    "vt",
    "cwe",
    "fwe",
    "qa_1",
    "qa_2",
)
RULER_PREFIX = "ruler_"
RULER_PUBLISHED = tuple(f"{RULER_PREFIX}{name}" for name in RULER_CONFIGURATIONS)
MIDDLE_QA_PREFIX, MIDDLE_KEYS_PREFIX = "lost_in_the_middle_qa_", "lost_in_the_middle_kv_"
MIDDLE_DOCUMENTS = (10, 20, 30)  # documents of a question
MIDDLE_KEYS = (75, 140, 300)  # pairs of a key-value prompt
MIDDLE_PUBLISHED = (
    *(f"{MIDDLE_QA_PREFIX}{number}" for number in MIDDLE_DOCUMENTS),
    *(f"{MIDDLE_KEYS_PREFIX}{number}" for number in MIDDLE_KEYS),
)
PUBLISHED_TASKS = (*RULER_PUBLISHED, *MIDDLE_PUBLISHED)
PUBLISHED_PERPLEXITIES = ("yarn", "yarn_sliding", "longlora", "longppl")


def is_published(task: str) -> bool:
    """Whether rows of `task` come from a published task."""
    return task in PUBLISHED_TASKS
