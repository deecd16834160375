"""What candidates are scored on."""

from pathlib import Path

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from data_schemas.errors import UserError
from tasks.evaluate.heldout import HeldOutDocument, tokenize
from tasks.rope_search.samples import SampleRequest, make_samples, read_samples, refuse_little_text, write_samples

REQUEST = SampleRequest(length=600, num_depths=3, text_tokens=20, seed=5)


@pytest.fixture(scope="module")
def documents(tokenizer: PreTrainedTokenizerFast) -> list[HeldOutDocument]:
    texts = ["".join(f"Bridge {i} of work {work} hangs over a valley.\n" for i in range(60)) for work in range(2)]
    return [tokenize(f"d{work}", text, tokenizer) for work, text in enumerate(texts)]


def test_answers_and_text_are_where_the_sample_says(documents: list, tokenizer: PreTrainedTokenizerFast) -> None:
    samples = make_samples(documents, REQUEST, tokenizer, purpose="search", count=4)
    assert [sample.doc_id for sample in samples] == ["d0", "d1", "d0", "d1"]
    for sample in samples:
        assert len(sample.tokens) == 600
        answers = "".join(tokenizer.decode(sample.tokens[sample.answers]).split())
        assert answers.isdigit()
        whole = tokenizer.decode(sample.tokens)
        keys = [answers[i : i + 5] for i in range(0, len(answers), 5)]
        assert len(set(keys)) == 3
        assert all(whole.count(key) == 3 for key in keys), "twice in the needle, once as the answer"
        assert len(sample.text) == 20
        assert sample.text[-1] + 1 < sample.answers[0]
        assert "key" not in tokenizer.decode(sample.tokens[sample.text]), "scored text comes after the needles"
        assert [int(depth * 3) for depth in sample.depths] == [0, 1, 2], "a needle in each third"
    assert len({sample.digest for sample in samples}) == 4


def test_samples_are_a_function_of_the_seed_and_those_of_the_decision_are_others(
    documents: list, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    samples = make_samples(documents, REQUEST, tokenizer, purpose="search", count=2)
    again = make_samples(documents, REQUEST, tokenizer, purpose="search", count=3)
    assert [s.digest for s in again[:2]] == [s.digest for s in samples]
    others = make_samples(documents, REQUEST, tokenizer, purpose="decide", count=2)
    assert not {s.digest for s in others} & {s.digest for s in samples}
    write_samples(samples, tmp_path / "samples.npz")
    read = read_samples(tmp_path / "samples.npz")
    assert [s.digest for s in read] == [s.digest for s in samples]
    assert [(s.doc_id, s.depths) for s in read] == [(s.doc_id, s.depths) for s in samples]
    assert np.array_equal(read[1].tokens, samples[1].tokens)


def test_too_many_needles_for_the_length_are_refused(documents: list, tokenizer: PreTrainedTokenizerFast) -> None:
    request = SampleRequest(length=300, num_depths=3, text_tokens=20, seed=0)
    with pytest.raises(UserError, match=r"lower rope_search\.depths") as at_a_document:
        make_samples(documents, request, tokenizer, purpose="search", count=1)
    with pytest.raises(UserError) as before:
        refuse_little_text(request, tokenizer)
    assert documents[0].num_leading == 0
    assert str(before.value) == str(at_a_document.value)
    refuse_little_text(REQUEST, tokenizer)
