"""Which documents choose and which decide."""

from pathlib import Path

import pytest

from data_schemas.storage import Storage
from ray_jobs.search_rope.search_stage import search_samples
from tasks.evaluate.heldout import read_works
from tasks.rope_search.plans import (
    space_of,
)
from tests.ray_jobs.search_rope.search_example import documents_of, search_params


def test_a_work_is_on_one_side_and_counts_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = search_params(folder)
    space, documents = space_of(params), documents_of(Storage(params.storage)).path
    own = read_works(documents)
    works = {doc_id: f"work {number % 5}" for number, doc_id in enumerate(own)}
    monkeypatch.setattr("tasks.rope_search.sides.read_works", lambda folder: works)
    samples = search_samples(params, documents, space)
    sides = samples[: params.rope_search.samples], samples[params.rope_search.samples :]
    of_search, of_decision = ({sample.cluster for sample in side} for side in sides)
    assert not of_search & of_decision
    assert of_search | of_decision == set(works.values())
    monkeypatch.setattr("tasks.rope_search.sides.read_works", lambda folder: dict.fromkeys(own, "one"))
    assert all(sample.cluster == sample.doc_id for sample in search_samples(params, documents, space))


@pytest.mark.parametrize(
    ("single", "large", "num_large", "on_sides"),
    [(3, 40, 3, (2, 4)), (10, 40, 3, (5, 8)), (40, 0, 0, (10, 16)), (1, 40, 2, (10, 16))],
)
def test_each_work_gives_a_document_before_any_gives_a_second(
    folder: Path, tmp_path: Path, single: int, large: int, num_large: int, on_sides: tuple[int, int]
) -> None:
    params = search_params(folder, samples=10, deciding_samples=16)
    works = [f"single {number}" for number in range(single)] + [f"large {n}" for n in range(num_large) for _ in range(large)]
    documents = documents_of(Storage(str(tmp_path)), ["held out", *works]).path
    samples = search_samples(params, documents, space_of(params))
    of_search, of_decision = ({sample.cluster for sample in part} for part in (samples[:10], samples[10:]))
    assert not of_search & of_decision
    assert (len(of_search), len(of_decision)) == on_sides
    if len(set(works)) >= 4:
        assert of_search | of_decision <= set(works)
        assert len({sample.cluster for sample in samples[10:14]}) == 4, "the first look is on different works"
    else:
        assert all(sample.cluster == sample.doc_id for sample in samples), "fewer than four works"
