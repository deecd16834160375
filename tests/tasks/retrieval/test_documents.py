"""Retrieval documents of all kinds: their length, their evidence, and what their loss weighs."""

import math
import re
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from data_schemas.retrieval_params import FAMILIES, RetrievalFamily, RetrievalParams
from tasks.retrieval.chat import chat_frame
from tasks.retrieval.draft import Draft, NotMade
from tasks.retrieval.families.forms import ALWAYS, SIGNS, form
from tasks.retrieval.fitting import Fitted
from tasks.retrieval.rendering import Renderer
from tasks.retrieval.text_supply import SourceText
from tasks.retrieval.weights import MAX_ANSWER_WEIGHT, loss_weights, reached_share
from tests.tasks.retrieval.made_texts import Maker, code, sources
from tests.tasks.tokens.made_tokenizers import KINDS

LENGTH = 1536
QUESTIONED = ("key_value", "keyword", "position", "fill_in", "repeated_opening", "scattered_facts")
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
        assert weighed == "".join([*(draft.before[a:b] for a, b in draft.answers), *answers])
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


@pytest.mark.parametrize("script", ["latin", "chinese", "code"])
@pytest.mark.parametrize("family", ["position", "repeated_opening", "fill_in", "keyword"])
def test_no_question_shows_an_answer_or_half_of_it(family: RetrievalFamily, script: str) -> None:
    """Else the answer could be copied from nearby, and its evidence far back would not be needed."""
    maker = Maker(KINDS["bytes"](), 3072, script) if script != "code" else code_maker(3072)
    for seed in range(6):
        shown = ""
        for turn in maker.make(family, seed).draft.turns:
            shown += f"\n{turn.question}".casefold()
            answer = turn.answer.strip().casefold()
            size = len(answer) if family == "fill_in" else math.ceil(len(answer) / 2)
            assert not any(answer[i : i + size] in shown for i in range(len(answer) - size + 1)), (answer, shown)
            shown += f"\n{answer}"
        assert shown.count("\n") > 6


def code_maker(length: int) -> Maker:
    return Maker(KINDS["bytes"](), length, texts=[SourceText(f"d{i}", code(i, 24_000), "MIT", "en") for i in range(4)])


def test_gaps_are_whole_words_and_never_part_of_a_name() -> None:
    maker = code_maker(3072)
    questions = [turn.question for seed in range(8) for turn in maker.make("fill_in", seed).draft.turns]
    assert len(questions) > 50
    assert any("_" in question.replace("____", "") for question in questions), "the text has names of several parts"
    assert not [question for question in questions if re.search(r"\w____|____\w|_____", question)]


def test_position_asks_about_true_neighbours_alone() -> None:
    """Lines of signs or few letters cannot be asked about, but they are lines."""
    maker = code_maker(3072)
    num_asked = 0
    for seed in range(8):
        draft = maker.make("position", seed).draft
        for turn in draft.turns:
            quotation, sign = turn.question[:-3], turn.question[-2:]
            places = sorted([draft.before.index(quotation), turn.evidence])
            assert (places[0] == turn.evidence) == (sign == "<<")
            assert draft.before[places[0] : places[1]].strip().count("\n") == 0, "one line, then the other one"
            num_asked += 1
    assert num_asked > 50


def test_paragraphs_are_of_one_document_and_chunks_of_three() -> None:
    maker = Maker(KINDS["bytes"](), 2000, texts=sources(6, 5000))
    texts = {document.doc_id: document.text for document in maker.supply.documents}
    shown: set[str] = set()
    families: list[tuple[RetrievalFamily, int]] = [("shuffled_chunks", 3), ("paragraph_order", 1)] * 3
    for seed, (family, number) in enumerate(families):
        draft = maker.make(family, seed).draft
        assert len(set(draft.doc_ids)) == number
        labelled = re.split(r"(?:^|\n\n)(?:\[\[\w+\]\]|\(\w+\))\n", draft.before)[1:]
        pieces = [piece.strip() for piece in labelled]
        assert {doc_id for piece in pieces for doc_id, text in texts.items() if piece in text} == set(draft.doc_ids)
        assert not shown & set(pieces), "no text is given out twice"
        shown |= set(pieces)
        maker.supply.take(draft.taken)


def test_documents_that_are_too_few_or_too_short_for_their_pieces_are_a_reason() -> None:
    with pytest.raises(NotMade, match="too few documents long enough for its chunks"):
        Maker(KINDS["bytes"](), 2000, texts=sources(2, 9000)).make("shuffled_chunks")
    with pytest.raises(NotMade, match="no document long enough for its paragraphs"):
        Maker(KINDS["bytes"](), 2000, texts=sources(9, 1000)).make("paragraph_order")


def test_lines_of_keys_stand_between_lines_or_sentences(makers: dict[str, Maker]) -> None:
    for seed in range(8):
        draft = makers["bytes"].make("key_value", seed).draft
        fronts = [draft.before[end:start] for (_, end), (start, _) in pairwise([(0, 0), *draft.invented])]
        assert sum(map(bool, fronts)) > 3
        assert all(front.endswith("\n") and front.rstrip()[-1:] == "." for front in fronts if front)


def test_every_line_has_its_own_key_and_value_and_keys_of_two_parts_share_them(makers: dict[str, Maker]) -> None:
    found_kinds = set()
    for seed in range(16):
        draft = makers["bytes"].make("key_value", seed).draft
        lines = [draft.before[a:b] for a, b in draft.invented]
        asked = [f"{turn.question}{turn.answer}{turn.end}\n" for turn in draft.turns]
        assert [draft.before[turn.evidence :].partition("\n")[0] + "\n" for turn in draft.turns] == asked
        assert set(asked) < set(lines), "some lines are not asked for"
        assert len(set(lines)) == len(lines) > len(set(asked)) == len(asked) >= 4
        names = [tuple(re.findall(r"[A-Za-z0-9]+(?:[.-][A-Za-z0-9]+)*", line)) for line in lines]
        place = next(i for i, parts in enumerate(zip(*names, strict=True)) if len(set(parts)) > 1)
        keys = [parts[place] for parts in names]
        assert len(set(keys)) == len(keys)
        has_parts = all(re.fullmatch(r"[a-z]+\.[a-z]+", key) for key in keys)
        found_kinds.add((has_parts, len(lines) >= 2 * len(draft.turns)))
        if has_parts:
            parts = Counter(part for key in keys for part in key.split("."))
            asked_keys = [key for key, line in zip(keys, lines, strict=True) if line in asked]
            assert all(any(parts[part] > 1 for part in key.split(".")) for key in asked_keys)
    assert len(found_kinds) == 4, "keys of one part and of two, few lines and many"


def test_rounds_ask_for_all_of_their_lines_before_the_next_round_begins(makers: dict[str, Maker]) -> None:
    sizes, shares = [], []
    for seed in range(24):
        made = makers["bytes"].make("key_value_rounds", seed)
        draft, rendered = made.draft, made.rendered
        answers = [draft.before[a:b] for a, b in draft.answers] + [turn.answer.strip() for turn in draft.turns]
        assert len(set(answers)) == len(answers) > 8, "no value twice"
        pieces = [draft.before[a:b] for a, b in draft.invented]
        lines = [piece for piece in pieces if any(answer in piece for answer in answers)]
        assert len(lines) == len(answers)
        for turn in draft.turns:
            assert draft.before[turn.evidence :].startswith(f"{turn.question}{turn.answer}{turn.end}\n")
        read = asked = size = 0
        for start, end in sorted((*draft.invented, *draft.answers)):
            piece = draft.before[start:end]
            if (start, end) in draft.answers:
                assert draft.before.count(piece, 0, start) == 1, "in its line, and nowhere else before"
                asked += 1
                if asked == read:
                    sizes.append(size)
                    size = 0
            elif piece in lines:
                read, size = read + 1, size + 1
        assert read - asked == len(draft.turns)
        shares.append(rendered.is_answer.mean())
    assert min(sizes) == 2
    assert max(sizes) > 12
    assert np.median(sizes) < 8, "most rounds are short"
    assert np.mean(shares) > 1.5 * np.mean([makers["bytes"].make("key_value", i).rendered.is_answer.mean() for i in range(12)])


def test_scattered_facts_are_begun_in_words_of_the_text_and_asked_for_anywhere_after(makers: dict[str, Maker]) -> None:
    maker = makers["bytes"]
    in_text = at_end = alike = 0
    for seed in range(12):
        draft = maker.make("scattered_facts", seed).draft
        pieces = [(draft.before[a:b], a) for a, b in sorted((*draft.invented, *draft.answers))]
        answers = [draft.before[a:b] for a, b in draft.answers] + [turn.answer.strip() for turn in draft.turns]
        lines = {answer: next(piece for piece, _ in pieces if f" {answer}" in piece) for answer in answers}
        cues = {answer: line.partition(f" {answer}")[0] for answer, line in lines.items()}
        assert len(set(cues.values())) == len(set(answers)) == len(answers) >= 4, "no cue and no value twice"
        text = maker.supply.passage(draft.num_used)
        assert all(word in text for cue in cues.values() for word in cue.split()), "words of the text"
        assert {turn.question for turn in draft.turns} == {cues[turn.answer.strip()] for turn in draft.turns}
        for start, end in draft.answers:
            answer = draft.before[start:end]
            assert draft.before.count(answer, 0, start) == 1, "told once, and asked for after it"
            assert draft.before[:start].endswith(f"\n{cues[answer]} "), "on a line of its own"
        in_text, at_end = in_text + len(draft.answers), at_end + len(draft.turns)
        told = [cue.split() for cue in cues.values()]
        alike += sum(len(a) == len(b) and sum(x != y for x, y in zip(a, b, strict=True)) == 1 for a in told for b in told)
    assert 0.3 < in_text / (in_text + at_end) < 0.6, "half, but one of each document that is at its end"
    assert alike >= 0.5 * (in_text + at_end), "most have another one that differs in one word"


def test_forms_are_many_and_only_of_signs_that_the_tokenizer_can_write() -> None:
    rng = np.random.default_rng(0)
    some = [form(rng, ("letters", "digits"), SIGNS) for _ in range(400)]
    assert len({(one.front, one.middle, one.end) for one in some}) > 350
    assert len({one for one in some if re.search(r"[a-z]", one.middle)}) > 60, "some have words around the key"
    few = [form(rng, ("digits",), ALWAYS) for _ in range(400)]
    assert {sign for one in few for sign in one.line("", "") if not sign.isspace()} <= set(ALWAYS) | set("0123456789-")
    assert len({one.middle for one in few}) > 20


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
    for share in (0.01, 0.06, 0.5, 1.0):
        weights = loss_weights(is_answer, is_invented, share)
        reached = min(share, 4 * MAX_ANSWER_WEIGHT / 1000)
        assert weights[1:].sum() == pytest.approx(1000, rel=1e-5)
        assert weights[is_answer].sum() == pytest.approx(1000 * reached, rel=1e-5)
        assert reached_share(weights, is_answer) == pytest.approx(reached, rel=1e-5)
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


def test_longer_rows_have_more_questions_unless_their_number_is_set() -> None:
    lengths = (512, 2048, 2175, 2176, 16_384, 32_767, 131_072)
    assert [RetrievalParams().questions_of(length) for length in lengths] == [16, 16, 16, 17, 128, 255, 256]
    assert {RetrievalParams(questions=5).questions_of(length) for length in lengths} == {5}


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
        # Up to an empty line between two documents, and what stands before the next line or sentence.
        assert -2 <= before - maker.supply.num_left - num_used <= 240
    starts = [text[:60] for text in shown]
    assert all(sum(start in text for text in shown) == 1 for start in starts)


def test_text_with_far_more_tokens_than_usual_fits_too() -> None:
    maker = Maker(KINDS["llama3"](), LENGTH)
    maker.chars_per_token *= 4  # as where the rest of the corpus is prose, and this document a table of numbers
    assert len(maker.make("key_value").rendered.token_ids) == LENGTH


@pytest.mark.parametrize("symbols", [("letters", "capitals", "digits"), ("letters", "digits"), ("digits",), ("letters",)])
@pytest.mark.parametrize("family", ["key_value", "key_value_rounds", "scattered_facts"])
def test_a_value_stands_in_its_line_alone_and_names_do_not_run_out(family: RetrievalFamily, symbols: tuple[str, ...]) -> None:
    maker = Maker(KINDS["bytes"](), 65_536, questions=256)
    maker.request = replace(maker.request, symbols=symbols)
    draft = maker.make(family).draft
    answers = [draft.before[a:b] for a, b in draft.answers] + [turn.answer.strip() for turn in draft.turns]
    assert len(answers) >= 256
    asked = [draft.before[a:b] for a, b in draft.invented]
    seen = Counter(name for text in asked for name in re.findall(r"[A-Za-z0-9]+(?:-[A-Za-z0-9]+)*", text))
    assert {seen[answer] for answer in answers} == {1}, "in no key, part of a key or word of the form"
