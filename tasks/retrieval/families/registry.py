"""Families by name."""

from __future__ import annotations

from collections.abc import Mapping

from data_schemas.retrieval_params import RetrievalFamily
from tasks.retrieval.families.hard_negatives import hard_negatives
from tasks.retrieval.families.key_value import key_value
from tasks.retrieval.families.key_value_rounds import key_value_rounds
from tasks.retrieval.families.order import paragraph_order, shuffled_chunks
from tasks.retrieval.families.quotes import fill_in, keyword, position, repeated_opening
from tasks.retrieval.families.request import Family
from tasks.retrieval.families.scattered_facts import scattered_facts

MAKERS: Mapping[RetrievalFamily, Family] = {
    "key_value": key_value,
    "keyword": keyword,
    "position": position,
    "fill_in": fill_in,
    "repeated_opening": repeated_opening,
    "paragraph_order": paragraph_order,
    "shuffled_chunks": shuffled_chunks,
    "hard_negatives": hard_negatives,
    "key_value_rounds": key_value_rounds,
    "scattered_facts": scattered_facts,
}
