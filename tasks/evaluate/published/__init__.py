"""Tasks and perplexities as published: the authors' prompts, parameters, scores and truncation, so that figures can be compared.

    evaluation.published ──▶ ruler_*               prompts of RULER's 13 configurations
                             lost_in_the_middle    prompts of *Lost in the Middle*
                             perplexity_windows    windows of YaRN and LongLoRA
                             key_tokens            key tokens of LongPPL
                             scores                the authors' scores
                             deviations            where Ropeway's own tasks differ from these, and what differs here

Prompt texts, parameters and the order in which random numbers are drawn are the authors'; the code is Ropeway's own. Tests compare
with values that the authors' code computed on the same inputs (`tests/data/published`). Revisions and licences:

RULER               c3f5e3b4f87f97e048793bb510a3a6b19a46bf3a  Apache-2.0
Lost in the Middle  29b8a6d042ce29abccee3db1a73171a107d7e6af  MIT
YaRN                995db5b575e75230b3384d658f8b944c9662f775  MIT
LongLoRA            d4eb344c5ccc9e91c0812a2b2aeea69070df8c33  Apache-2.0
LongPPL             1decd2a70d9ee78488adea49c088f8bc472f4938  Apache-2.0
"""
