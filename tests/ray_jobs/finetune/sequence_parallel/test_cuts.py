"""Where rows are cut: about equal cost, at the places where least is sent; and what is sent for a cut."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_schemas.errors import UserError
from ray_jobs.finetune.segments import segment_batch
from ray_jobs.finetune.sequence_parallel.cuts import RowCost, plan_cuts, sent_tokens
from ray_jobs.finetune.sequence_parallel.halo import halo_start, local_segments, pieces
from ray_jobs.finetune.training.batches import _as_row, positions_without_gaps

COST = RowCost(linear=1e4)
LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=12)


def segments_of(lengths, group_size, in_full=None):
    import torch

    positions = _as_row(positions_without_gaps(0, np.array(lengths)), torch.device("cpu"))
    marks = None if in_full is None else torch.from_numpy(np.repeat(in_full, lengths))[None]
    return segment_batch(positions, group_size, marks)


@settings(max_examples=60)
@given(LENGTHS, st.integers(1, 4), st.integers(2, 20), st.booleans())
def test_cuts_grow_and_parts_have_tokens(lengths, num_parts, group_size, stays):
    if sum(lengths) < num_parts:
        with pytest.raises(UserError, match="cannot be cut over"):
            plan_cuts(np.array(lengths), num_parts, group_size, COST)
        return
    cost = RowCost(linear=3.0, in_groups=0.5, in_full=0.5 if stays else 0)
    cuts = plan_cuts(np.array(lengths), num_parts, group_size, cost)
    assert (cuts[0], cuts[-1], len(cuts)) == (0, sum(lengths), num_parts + 1)
    assert all(a < b for a, b in itertools.pairwise(cuts))


def test_a_cut_goes_where_a_document_ends_if_that_is_nearly_as_fair():
    assert plan_cuts(np.array([5050, 4950]), 2, 512, COST)[1] == 5050


def test_inside_a_document_a_cut_goes_to_a_group_border():
    cut = plan_cuts(np.array([40_000]), 2, 256, COST)[1]
    assert cut % 128 == 0
    assert sent_tokens(np.array([40_000]), cut, 256) in {(0, 128), (128, 0)}


def test_documents_in_full_and_layers_in_full_make_later_tokens_dearer():
    cheap = RowCost(linear=0.0, in_groups=0.0, in_full=1.0)
    cut = plan_cuts(np.array([10_000]), 2, 512, cheap)[1]
    assert cut == pytest.approx(10_000 / 2**0.5, rel=0.03), "half of the triangle of queries and keys"
    marked = plan_cuts(np.array([10_000]), 2, 512, RowCost(linear=0.0), np.array([True]))[1]
    assert marked == pytest.approx(10_000 / 2**0.5, rel=0.03)


@settings(max_examples=60)
@given(LENGTHS.filter(lambda lengths: sum(lengths) > 4), st.integers(2, 20), st.data())
def test_what_is_sent_is_what_segments_need(lengths, group_size, data):
    marks = np.array(data.draw(st.lists(st.booleans(), min_size=len(lengths), max_size=len(lengths))))
    total = sum(lengths)
    cuts = (0, *sorted(data.draw(st.sets(st.integers(1, total - 1), min_size=1, max_size=3))), total)
    found = segments_of(lengths, group_size, marks)
    partitions = [found.unshifted, found.shifted]
    sent = pieces(partitions, cuts)
    for receiver in range(1, len(cuts) - 1):
        cut = cuts[receiver]
        wanted = sent_tokens(np.array(lengths), cut, group_size, marks)
        for number, segments in enumerate(partitions):
            of_part = [piece for piece in sent if (piece.receiver, piece.partition) == (receiver, number)]
            tokens = [token for piece in of_part for token in range(piece.start, piece.end)]
            assert tokens == list(range(halo_start(segments, cut), cut)), "in order, each once"
            assert len(tokens) == wanted[number]
            assert all(cuts[p.sender] <= p.start < p.end <= cuts[p.sender + 1] for p in of_part)
    for first, last in itertools.pairwise(cuts):
        for segments in partitions:
            count, bounds = local_segments(segments, first, last)
            inside = [bound - first for bound in segments.bounds if first <= bound < last]
            assert bounds == (*inside, last - first)
            assert count == (inside[0] if inside else last - first)


def test_between_documents_nothing_is_sent():
    found = segments_of([30, 30], 8)
    assert pieces([found.unshifted, found.shifted, found.documents], (0, 30, 60)) == []


def test_a_window_shortens_the_halo():
    found = segments_of([100], 200)
    (piece,) = pieces([found.documents], (0, 60, 100), window=10)
    assert (piece.start, piece.end) == (51, 60)
