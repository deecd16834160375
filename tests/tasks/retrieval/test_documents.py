"""Retrieval documents of all kinds: their length, their evidence, and what their loss weighs."""

import re
from collections import Counter

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from data_schemas.retrieval_params import FAMILIES, RetrievalFamily
from tasks.retrieval.chat import chat_frame
from tasks.retrieval.draft import Draft, NotMade
from tasks.retrieval.families.key_value import STYLES
from tasks.retrieval.fitting import Fitted
from tasks.retrieval.rendering import Renderer
from tasks.retrieval.weights import loss_weights
from tests.tasks.retrieval.made_texts import Maker
from tests.tasks.tokens.made_tokenizers import KINDS

LENGTH = 1536
QUESTIONED = ("key_value", "keyword", "position", "fill_in", "repeated_opening")
CHI_SQUARE_9 = 27.9  # exceeded once in a thousand times by 10 classes
TEMPLATE = "{% for m in messages %}<s>{{ m['role'] }}\n{{ m['content'] }}</s>\n{% endfor %}"


@pytest.fixture(scope="module")
def makers() -> dict[str, Maker]:
    return {name: Maker(make(), LENGTH) for name, make in KINDS.items()}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", KINDS)
def test_documents_have_exactly_the_length_and_the_ids_of_their_text(
    family: RetrievalFamily, kind: str, makers: dict[str, Maker]
) -> None:
    maker = makers[kind]
    for seed in range(2):
        rendered = maker.make(family, seed).rendered
        whole = next(maker.encoder.encode([rendered.text])).ids
        assert rendered.token_ids.tolist() == maker.special.around(whole, is_last=True).tolist()
        assert len(rendered.token_ids) == len(rendered.is_answer) == LENGTH
        assert 0 < rendered.is_answer.sum() < LENGTH / 2


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("script", ["cyrillic", "chinese"])
def test_any_script_will_do(family: RetrievalFamily, script: str) -> None:
    rendered = Maker(KINDS["bytes"](), 3072, script).make(family).rendered
    assert len(rendered.token_ids) == 3072
    assert rendered.is_answer.any()


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_occur_in_the_evidence_and_weigh(family: RetrievalFamily, makers: dict[str, Maker]) -> None:
    maker = makers["bytes"]  # so characters are tokens, after none in front
    for seed in range(4):
        made = maker.make(family, seed)
        draft, rendered = made.draft, made.rendered
        weighed = maker.encoder.text(rendered.token_ids[rendered.is_answer])
        if family == "hard_negatives":
            own = [draft.before[a:b] for a, b in draft.answers]
            assert len(own) >= 2
            assert weighed == "".join(own) + draft.after
            continue
        answers = [turn.answer.strip() for turn in draft.turns]
        assert weighed == "".join(answers)
        for turn, evidence, answered in zip(draft.turns, rendered.evidence, rendered.answered, strict=True):
            answer = turn.answer.strip()
            told = maker.encoder.text(rendered.token_ids[evidence:answered])
            pieces = re.findall(r"\w+", answer) if family in ("paragraph_order", "shuffled_chunks") else [answer]
            assert all(piece in draft.before for piece in pieces)
            assert told[: len(answer) + 200].find(pieces[0]) >= 0, "the evidence begins where it is said to"
            assert maker.encoder.text(rendered.token_ids[answered:]).startswith(answer)


@pytest.mark.parametrize("family", QUESTIONED)
def test_evidence_is_spread_evenly_over_depths_and_distances(family: RetrievalFamily) -> None:
    maker = Maker(KINDS["bytes"](), 6000)
    depths, distances = [], []
    for seed in range(40):
        made = maker.make(family, seed)
        context = len(made.draft.before)
        depths += [turn.evidence / context for turn in made.draft.turns]
        for turn, answered in zip(made.draft.turns, made.rendered.answered, strict=True):
            behind = answered - context  # of the answer, in characters, which are tokens
            distances.append((answered - turn.evidence - behind) / context)
        maker.supply.use(made.draft.num_used // 8)
    assert len(depths) > 200
    for values in (depths, distances):
        counts = np.histogram(values, bins=10, range=(0, 1))[0]
        expected = len(values) / 10
        assert ((counts - expected) ** 2 / expected).sum() < CHI_SQUARE_9, counts


def test_an_answer_is_often_nearly_a_whole_document_away_from_its_evidence() -> None:
    maker = Maker(KINDS["bytes"](), 2048, questions=64)  # so many that they fill a third of the document
    distances = [
        (answered - evidence) / 2048
        for seed in range(40)
        for rendered in [maker.make("key_value", seed).rendered]
        for evidence, answered in zip(rendered.evidence, rendered.answered, strict=True)
    ]
    assert len(distances) > 200
    assert np.mean(np.array(distances) > 0.9) > 0.075, "a tenth if all distances are equally frequent; 0.054 in random order"


@pytest.mark.parametrize("script", ["latin", "chinese"])
@pytest.mark.parametrize("family", ["position", "repeated_opening"])
def test_no_question_shows_the_answer_of_another(family: RetrievalFamily, script: str) -> None:
    """Else the answer could be copied from nearby, and its evidence far back would not be needed."""
    maker = Maker(KINDS["bytes"](), 3072, script)
    for seed in range(6):
        shown = ""
        for turn in maker.make(family, seed).draft.turns:
            assert turn.answer.strip()[:16] not in shown
            shown += f"{turn.question}{turn.answer}\n"
        assert shown.count("\n") > 3


def test_every_line_has_its_own_key_and_value_and_keys_of_two_parts_share_them(makers: dict[str, Maker]) -> None:
    signs = [re.escape(style).replace(r"\{key\}", r"(\S+?)") for style in STYLES]
    found_kinds = set()
    for seed in range(12):
        draft = makers["bytes"].make("key_value", seed).draft
        lines = [found for sign in signs for found in re.findall(rf"^{sign} (\S+)$", draft.before, re.MULTILINE)]
        keys, values = zip(*lines, strict=True)
        assert len(set(keys)) == len(keys) == len(set(values))
        assert len(keys) > len(draft.turns) >= 4, "some lines are not asked for"
        asked = [
            key for turn in draft.turns for key in keys if re.search(rf"(?<![\w.-]){re.escape(key)}(?![\w.-])", turn.question)
        ]
        assert len(set(asked)) == len(asked) == len(draft.turns)
        has_parts = "." in keys[0]
        found_kinds.add((has_parts, len(keys) >= 2 * len(draft.turns)))
        if has_parts:
            parts = Counter(part for key in keys for part in key.split("."))
            assert all(any(parts[part] > 1 for part in key.split(".")) for key in asked)
    assert len(found_kinds) == 4, "words and pairs, few lines and many"


def test_hard_negatives_are_of_other_documents_and_differ(makers: dict[str, Maker]) -> None:
    maker = makers["llama3"]
    draft = maker.make("hard_negatives").draft
    own = maker.supply.doc_ids(draft.num_used)
    assert len(set(draft.negatives)) == len(draft.negatives) > 2
    texts = {document.doc_id: document.text for document in maker.supply.documents}
    assert all(not any(negative in texts[doc_id] for doc_id in own) for negative in draft.negatives)
    assert set(own) < set(draft.doc_ids)
    maker.request.negatives.give(draft.negatives)
    again = maker.make("hard_negatives").draft
    assert not set(again.negatives) & set(draft.negatives), "a passage is given once"


def test_what_fills_a_document_up_is_counted_as_its_source(makers: dict[str, Maker]) -> None:
    """Every passage that is shown is of a document that is named, and every document that is named is shown."""
    num_from_filling = 0
    for maker in makers.values():
        texts = {document.doc_id: document.text for document in maker.supply.documents}
        for seed in range(4):
            made = maker.make("hard_negatives", seed)
            draft, named = made.draft, made.draft.made_from(made.num_filled)
            filled = draft.spare[: made.num_filled]
            assert draft.before + filled in made.rendered.text
            shown = [piece for piece in (draft.before + filled).split("\n\n") if piece.strip()]
            assert all(any(piece.strip() in texts[doc_id] for doc_id in named) for piece in shown)
            of_filling = set(named) - set(draft.doc_ids)
            assert all(any(piece and piece in texts[doc_id] for piece in filled.split("\n\n")) for doc_id in of_filling)
            num_from_filling += len(of_filling)
    assert num_from_filling, "some document is shown in the filling alone"


def test_only_passages_that_are_shown_count() -> None:
    draft = Draft("", "abc\n\ndef\n\nghi", 0, ("own", "b"), spare_from=((0, "a"), (5, "b"), (10, "c")))
    assert [len(draft.made_from(num_filled)) for num_filled in (0, 1, 5, 6, 10, 11)] == [2, 3, 3, 3, 3, 4]


def test_a_chat_template_gets_questions_and_answers_in_turns() -> None:
    raw = KINDS["llama3"]().backend_tokenizer
    made = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>")
    made.chat_template = TEMPLATE
    frame = chat_frame(made)
    assert frame is not None
    maker = Maker(made, LENGTH)
    maker.renderer = Renderer(maker.encoder, maker.special, frame)
    fitted = maker.make("key_value")
    rendered, turns = fitted.rendered, fitted.draft.turns
    messages = []
    for number, turn in enumerate(turns):
        front = "" if number else fitted.draft.before + filled(fitted) + "\n\n"
        messages += [{"role": "user", "content": front + turn.question}, {"role": "assistant", "content": turn.answer.strip()}]
    wanted = made.apply_chat_template(messages, tokenize=False)
    assert made.decode(rendered.token_ids) == wanted
    assert len(rendered.token_ids) == LENGTH
    assert maker.encoder.text(rendered.token_ids[rendered.is_answer]) == "".join(turn.answer.strip() for turn in turns)


def filled(fitted: Fitted) -> str:
    """What fills the document up, found between its context and its first question."""
    draft, text = fitted.draft, fitted.rendered.text
    start = text.index(draft.before) + len(draft.before)
    return text[start : text.index("\n\n" + draft.turns[0].question, start)]


def test_answers_have_their_stated_share_of_the_loss() -> None:
    is_answer = np.zeros(1001, bool)
    is_answer[[10, 500, 501, 900]] = True
    is_invented = np.zeros(1001, bool)
    is_invented[400:502] = True
    for share in (0.01, 0.5, 1.0):
        weights = loss_weights(is_answer, is_invented, share)
        assert weights[1:].sum() == pytest.approx(1000, rel=1e-5)
        assert weights[is_answer].sum() == pytest.approx(1000 * share, rel=1e-5)
        assert len(set(weights[is_answer].tolist())) == 1
        assert not weights[is_invented & ~is_answer].any()
    assert loss_weights(np.zeros(5, bool), np.zeros(5, bool), 0.5).tolist() == [1, 1, 1, 1, 1]


def test_invented_keys_and_questions_about_them_weigh_nothing_but_the_text_does(makers: dict[str, Maker]) -> None:
    for maker in makers.values():
        fitted = maker.make("key_value")
        rendered, draft = fitted.rendered, fitted.draft
        invented = maker.encoder.text(rendered.token_ids[rendered.is_invented & ~rendered.is_answer])
        kept = maker.encoder.text(rendered.token_ids[~rendered.is_invented & ~rendered.is_answer])
        for turn in draft.turns:
            key = re.sub(r"[^\w.]", "", turn.question)
            assert invented.count(key) == 2, "in its line and in its question"
            assert key not in kept
        lines = sum(end - start for start, end in draft.invented)
        assert len(kept) > 0.9 * (len(draft.before) - lines)
    assert not makers["bytes"].make("keyword").rendered.is_invented.any()


def test_a_length_that_is_too_short_is_a_reason() -> None:
    maker = Maker(KINDS["bytes"](), 40)
    for family in FAMILIES:
        with pytest.raises(NotMade):
            maker.make(family)


def test_no_text_is_given_out_twice(makers: dict[str, Maker]) -> None:
    maker = Maker(KINDS["bytes"](), 2000)
    shown = []
    for seed in range(5):
        made = maker.make("position", seed)
        before, num_used = maker.supply.num_left, made.draft.num_used + made.num_filled
        assert maker.supply.passage(num_used).startswith(made.draft.before)
        shown.append(made.draft.before)
        maker.supply.use(num_used)
        assert 0 <= before - maker.supply.num_left - num_used + 2 <= 2  # up to an empty line between two documents
    starts = [text[:60] for text in shown]
    assert all(sum(start in text for text in shown) == 1 for start in starts)


def test_text_with_far_more_tokens_than_usual_fits_too() -> None:
    maker = Maker(KINDS["llama3"](), LENGTH)
    maker.chars_per_token *= 4  # as where the rest of the corpus is prose, and this document a table of numbers
    assert len(maker.make("key_value").rendered.token_ids) == LENGTH
