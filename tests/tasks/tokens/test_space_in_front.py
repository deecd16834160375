"""The space that SentencePiece-like tokenizers put in front of a text stands where transformers has it, and nowhere else.

In instruction data, in retrieval documents and in prompts, for each kind of tokenizer, with templates that write BOS, that begin with text
and that write a message right behind a control token.
"""

from functools import cache

import numpy as np
import pytest
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from data_schemas.params import ChunkingParams
from tasks.chunk.chunker import Chunker
from tasks.evaluate.prompts.chat import chat_turn
from tasks.evaluate.prompts.joining import join
from tasks.evaluate.prompts.pieces import encode, question_and_answer
from tasks.pack.conversations import Conversation, ConversationEncoder, EncodedConversation
from tasks.retrieval.chat import chat_frame
from tasks.retrieval.draft import Draft, Turn
from tasks.retrieval.rendering import Renderer
from tasks.tokens.chat_template import ChatTemplate, Message
from tasks.tokens.encoding import encoder_of
from tasks.tokens.special_tokens import special_tokens
from tests.tasks.tokens.made_tokenizers import CHATML, KINDS, chatting
from tests.tasks.tokens.test_chat_template import MARKED_LLAMA2, without_tags

TEMPLATES = {
    "chatml": without_tags(CHATML),
    "llama2": without_tags(MARKED_LLAMA2),
    "text first": "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}{{ 'assistant: ' if add_generation_prompt }}",
    "no header": "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}",
}


@cache
def made(kind: str, template: str, has_bos: bool = True) -> PreTrainedTokenizerFast:
    tokenizer = chatting(kind, TEMPLATES[template])
    if not has_bos:
        tokenizer.backend_tokenizer.post_processor = None
    return tokenizer


def as_transformers(tokenizer: PreTrainedTokenizerFast, rendered: str) -> list[int]:
    """The ids of a rendered chat, behind BOS where the base was trained with it and the template does not write it."""
    bos, ids = special_tokens(tokenizer).opening.tolist(), tokenizer(rendered, add_special_tokens=False)["input_ids"]
    return ids if ids[:1] == bos else [*bos, *ids]


@pytest.mark.parametrize("has_bos", [True, False])
@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("kind", KINDS)
def test_prompts_in_a_chat_have_the_ids_of_the_rendered_chat(kind: str, template: str, has_bos: bool) -> None:
    tokenizer = made(kind, template, has_bos)
    turn = chat_turn(tokenizer, special_tokens(tokenizer).opening)
    assert turn is not None
    question, answer = question_and_answer("Which key? ", "x1", tokenizer, turn)
    joined = join([turn.opening, encode("The bridge is old. ", tokenizer), question], answer, tokenizer, [len(turn.opening)])
    asked = [{"role": "user", "content": "The bridge is old. Which key?"}]
    rendered = str(tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True))
    assert [*joined.tokens, *joined.answer] == as_transformers(tokenizer, rendered + "x1")
    assert encoder_of(tokenizer).text(joined.answer).strip() == "x1"
    assert encoder_of(tokenizer).text(joined.tokens[joined.starts[0] :]).lstrip().startswith("The bridge is old.")


@pytest.mark.parametrize("template", [*TEMPLATES, "fails"])
@pytest.mark.parametrize("kind", KINDS)
def test_plain_prompts_are_one_text_whatever_the_template(kind: str, template: str) -> None:
    tokenizer = chatting(kind, TEMPLATES.get(template, "{{ raise_exception('no system message') }}"))
    bos = special_tokens(tokenizer).opening
    joined = join(
        [bos, encode("The bridge is old. ", tokenizer), encode("Which key?", tokenizer)], encode(" x1", tokenizer), tokenizer
    )
    whole = next(encoder_of(tokenizer).encode(["The bridge is old. Which key? x1"])).ids
    assert [*joined.tokens, *joined.answer] == [*bos, *whole]


@pytest.mark.parametrize("has_bos", [True, False])
@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("kind", KINDS)
def test_retrieval_documents_in_a_chat_have_the_ids_of_the_rendered_chat(kind: str, template: str, has_bos: bool) -> None:
    tokenizer = made(kind, template, has_bos)
    encoder, special = encoder_of(tokenizer), special_tokens(tokenizer)
    turns = (Turn("Which key?", " x1.", 4), Turn("Which bridge?", " The old one.", 4))
    draft = Draft("The key is x1, the bridge is old.", "", 0, ("d",), turns)
    rendered = Renderer(encoder, special, chat_frame(tokenizer)).render(draft, " More.")
    asked = [f"{draft.before} More.\n\n{turns[0].question}", "x1.", turns[1].question, "The old one."]
    messages = [{"role": ("user", "assistant")[i % 2], "content": content} for i, content in enumerate(asked)]
    theirs = as_transformers(tokenizer, str(tokenizer.apply_chat_template(messages, tokenize=False)))
    closed = template != "text first"  # whose end is no control token, so EOS follows
    assert rendered.token_ids.tolist() == [*theirs, *([] if closed else [special.eos])]
    learned = encoder.text(rendered.token_ids[rendered.is_answer])
    assert "".join(learned.split()) == "x1.Theoldone."  # a full stop may be one token with the line end behind it


@pytest.mark.parametrize("has_bos", [True, False])
@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_literal_control_token_changes_nothing_but_its_own_place(kind: str, template: str, has_bos: bool) -> None:
    tokenizer = made(kind, template, has_bos)
    chat = ChatTemplate.of(tokenizer)
    assert chat is not None
    encoder = ConversationEncoder(tokenizer.backend_tokenizer, chat, special_tokens(tokenizer))

    def encoded(middle: str) -> EncodedConversation:
        talk = [Message("user", f"The bridge {middle} the bridge"), Message("assistant", "the bridge", True)]
        talk += [Message("user", "x"), Message("assistant", f"the {middle} wall", True)]
        return encoder.encode(Conversation(tuple(talk)), 10**6, "quarantine")

    def without(one: EncodedConversation, middle: str) -> list[tuple[int, bool]]:
        """Its tokens but those of `middle`, which is in it twice."""
        own = encode(f" {middle}", tokenizer).tolist()
        tokens = list(zip(one.ids.tolist(), one.is_answer.tolist(), strict=True))
        for _ in range(2):
            at = next(i for i in range(len(tokens)) if [number for number, _ in tokens[i : i + len(own)]] == own)
            del tokens[at : at + len(own)]
        return tokens

    assert without(encoded("</s>"), "</s>") == without(encoded("Q"), "Q")


@pytest.mark.parametrize("kind", KINDS)
def test_chunks_end_to_end_are_the_document(kind: str) -> None:
    tokenizer = KINDS[kind]()
    text = "The bridge is old. It crosses </s> the river.\n\n The wall <s> stands.\n" * 12
    raw = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    raw.encode_special_tokens = True
    for strategy in ("fixed", "semantic"):
        chunks = Chunker(tokenizer, ChunkingParams(strategy=strategy, max_tokens=30)).chunk(text)
        ids = np.concatenate([chunk.token_ids for chunk in chunks]).tolist()
        assert len(chunks) > 5
        assert ids == next(encoder_of(tokenizer).encode([text])).ids.tolist()
        if kind != "unigram":  # a Unigram model itself finds its control tokens in a text
            assert ids == raw.encode(text, add_special_tokens=False).ids
        assert not encoder_of(tokenizer).is_control[ids].any()
