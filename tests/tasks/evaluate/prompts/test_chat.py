"""Prompts through a chat template are what transformers renders: the question in the user's message, the answer's start behind it."""

from typing import Any

import numpy as np
import pytest

from data_schemas.errors import UserError
from data_schemas.evaluation_params import TASK_NAMES, TaskName
from data_schemas.params import PipelineParams
from tasks.evaluate.heldout import tokenize
from tasks.evaluate.prompts.chat import asked_chat, chat_turn
from tasks.evaluate.prompts.make import make_prompts, shortest
from tasks.evaluate.prompts.material import Haystack, Material
from tasks.evaluate.prompts.qa import QaExample
from tasks.evaluate.prompts.ranked_facts import fact_questions
from tests.tasks.retrieval.made_texts import prose
from tests.tasks.tokens.made_tokenizers import chatting

STARTS = {
    "passkey": "The pass key is",
    "key_value": '"',
    "document_qa": "Answer:",
    "graph_walk": "They are:",
    "spaced_evidence": "It opens with",
    "niah_multiquery": "The special number of",
}
QA = tuple(
    QaExample(f"Whose is\nboat {i}? Say it.", ("Ann",), f"Boat {i} is Ann's.", tuple(f"Cart {i}-{j}." for j in range(40)), i)
    for i in (1, 2)
)


def material() -> Material:
    tokenizer = chatting()
    turn = chat_turn(tokenizer, np.array([], np.int32))
    assert turn is not None
    haystack = Haystack.of([tokenize(f"d{i}", prose(i, 20_000), tokenizer) for i in range(3)])
    haystack = Haystack(haystack.token_ids, haystack.is_boundary, turn.opening)
    return Material(tokenizer, haystack, num_depths=2, num_samples=1, seed=1, qa=QA, chat=turn, texts=(prose(9, 20_000),))


def params(base: str = "some/base", sources: Any = ("x",), **evaluation: Any) -> PipelineParams:
    model = {"base": base, "target_length": 64}
    groups = {"corpus": {"sources": sources}, "evaluation": evaluation}
    return PipelineParams.model_validate({"run_name": "r", "model": model} | groups)


@pytest.mark.parametrize("task", [name for name in TASK_NAMES if name != "own_corpus"])
def test_a_prompt_is_what_transformers_renders_with_the_answers_start_behind_it(task: TaskName) -> None:
    made = material()
    tokenizer = made.tokenizer
    length = max(900, shortest(task, made))
    for prompt in make_prompts(task, length, made):
        for tokens in (prompt.tokens, *([prompt.control] if prompt.control is not None else [])):
            text = tokenizer.decode(np.concatenate([tokens, prompt.answer]))
            user, _, reply = text.removeprefix("<|im_start|>user\n").rpartition("<|im_end|>\n<|im_start|>assistant\n")
            asked = tokenizer.apply_chat_template(
                [{"role": "user", "content": user}], tokenize=False, add_generation_prompt=True
            )
            whole = tokenizer(asked + reply, add_special_tokens=False)["input_ids"]
            assert [*tokens.tolist(), *prompt.answer.tolist()] == whole
            assert reply.startswith(STARTS.get(task, ""))
            assert reply[:1].strip()
            assert reply.endswith(tokenizer.decode(prompt.answer))
        assert len(prompt.tokens) + max(len(prompt.answer), prompt.max_new_tokens) <= length
        if task == "passkey":
            assert len(prompt.tokens) + len(prompt.answer) == length


def test_ranked_passages_are_asked_in_the_chat_too() -> None:
    made = material()
    (question,) = fact_questions([900], 1, made).questions[900]
    text = made.tokenizer.decode(question.prompt(range(1, len(question.passages) + 1), made.tokenizer).tokens)
    assert text.startswith("<|im_start|>user\n# Numbered passages.")
    assert text.split("<|im_start|>assistant\n")[1].startswith("The code of")


def test_auto_asks_in_the_chat_where_the_corpus_has_instruction_data() -> None:
    tokenizer = chatting()
    chats = [{"uri": "x", "instructions": "auto"}]
    assert asked_chat(params(), tokenizer) is None
    assert asked_chat(params(sources=chats), tokenizer) is not None
    assert asked_chat(params(sources=chats, chat_template="off"), tokenizer) is None
    assert asked_chat(params(chat_template="on"), tokenizer) is not None
    assert "chat_template" not in params(sources=chats).evaluation.recorded()


def test_a_base_without_a_template_is_refused_only_when_one_is_asked_for() -> None:
    tokenizer = chatting(template=None)
    assert asked_chat(params(sources=[{"uri": "x", "instructions": "auto"}]), tokenizer) is None
    with pytest.raises(UserError, match=r"evaluation\.chat_template is on, but .* choose an instruct base"):
        asked_chat(params(chat_template="on"), tokenizer)
