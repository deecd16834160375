"""Records of conversations: every known form gives the same messages, and what cannot be learned from is refused by reason."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_schemas.params import CorpusParams, CorpusSource
from tasks.ingest.corpus_units import plan_corpus, read_unit
from tasks.ingest.quality.filters import finished
from tasks.ingest.reading.conversations import conversation_of
from tasks.ingest.reading.record_fields import from_fields
from tasks.ingest.reading.records import Document, Origin, Refused, Unusable
from tasks.ingest.reading.tables import text_and_labels

ASKED = [("user", "Who?\n\nMore."), ("assistant", "Ann.")]
OPENAI = [{"role": "user", "content": "Who?\n\nMore."}, {"role": "assistant", "content": [{"type": "text", "text": "Ann."}]}]
SHAREGPT = [{"from": "human", "value": "Who?\n\nMore."}, {"from": "gpt", "value": "Ann."}]
USER, ASSISTANT = {"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Ann."}


def source(instructions: str = "auto", **given: Any) -> CorpusSource:
    return CorpusSource.model_validate({"uri": "x.jsonl", "name": "x", "instructions": instructions} | given)


def messages(document: Document) -> list[tuple[str, str]]:
    return [(turn.role, document.text[turn.start : turn.end]) for turn in document.turns]


def read(fields: dict[str, Any], **given: Any) -> Document:
    return from_fields(fields, 1, None, Origin("x.jsonl", "x.jsonl", source(**given)))


@pytest.mark.parametrize(
    ("fields", "given"),
    [
        ({"messages": OPENAI}, {}),
        ({"conversations": SHAREGPT}, {}),
        ({"conversations": SHAREGPT}, {"instructions": "sharegpt"}),
        ({"instruction": "Who?", "input": "More.", "output": "Ann."}, {}),
        ({"instruction": "Who?\n\nMore.", "input": "", "output": "Ann.", "messages": None}, {}),
        ({"data": {"chat": OPENAI}}, {"messages_field": "data.chat"}),
        ({"chat": json.dumps(OPENAI)}, {"instructions": "messages", "messages_field": "chat"}),
    ],
)
def test_every_form_gives_the_same_messages(fields: dict[str, Any], given: dict[str, Any]) -> None:
    document = read(fields, **given)
    assert messages(document) == ASKED
    assert [turn.is_learned for turn in document.turns] == [False, True]
    assert document.text == "Who?\n\nMore.\n\nAnn."


def test_a_system_message_and_a_weight_of_0_are_kept() -> None:
    quiet = ASSISTANT | {"weight": 0}
    document = read({"system": "Be brief.", "messages": [USER, quiet, USER, ASSISTANT]})
    assert messages(document)[0] == ("system", "Be brief.")
    assert [turn.is_learned for turn in document.turns] == [False, False, False, False, True]


def test_a_document_goes_into_the_first_question_and_its_questions_are_one_work() -> None:
    given = {"context_field": "paper", "context_prompt": "Read.\n{context}\nEnd. {question}"}
    first, second = (
        read({"id": q, "paper": "Long text.", "instruction": q, "output": "A."}, **given) for q in ("Why?", "How?")
    )
    assert first.context is not None
    assert first.text[slice(*first.context)] == "Long text."
    assert messages(first)[0][1] == "Read.\nLong text.\nEnd. Why?"
    assert first.work == second.work
    assert first.doc_id != second.doc_id
    alone = read({"paper": "", "instruction": "Why?", "output": "A."}, **given)
    assert (alone.context, messages(alone)[0][1]) == (None, "Why?")


@pytest.mark.parametrize(
    ("fields", "reason", "told"),
    [
        ({"messages": [{"content": "Who?"}, ASSISTANT]}, "no_role", "message 1 has no role"),
        ({"messages": ["Who?"]}, "no_role", "message 1 is a str"),
        (
            {"messages": [USER, ASSISTANT, ASSISTANT]},
            "roles_out_of_order",
            "message 3 is of the assistant after one of the assistant",
        ),
        ({"messages": [USER, USER, ASSISTANT]}, "roles_out_of_order", "message 2 is of the user"),
        ({"conversations": SHAREGPT[1:]}, "roles_out_of_order", "message 1 is of the assistant first"),
        ({"messages": [{"role": "tool", "content": "3"}]}, "unknown_role", "'tool'"),
        ({"messages": [USER]}, "no_answer", "no message of the assistant"),
        ({"messages": [USER, {"role": "assistant", "content": " \n"}]}, "no_answer", "message 2"),
        ({"messages": [USER, {"role": "assistant", "content": None, "tool_calls": [{}]}]}, "not_text", "calls a tool"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "not_text", "message 1"),
        ({"messages": [USER, ASSISTANT | {"weight": 0.5}]}, "unknown_weight", "0.5"),
        ({"messages": []}, "no_messages", "no list of messages"),
        ({"text": "Once."}, "no_messages", "messages_field"),
        ({"instruction": "Who?", "output": 3}, "not_text", "'output' holds a int"),
    ],
)
def test_what_cannot_be_learned_from_is_refused_by_reason(fields: dict[str, Any], reason: str, told: str) -> None:
    with pytest.raises(Unusable) as problem:
        conversation_of(fields, source())
    assert problem.value.reason == reason
    assert told in problem.value.detail


def test_a_conversation_in_a_source_of_documents_says_what_to_set() -> None:
    plain = Origin("x.jsonl", "x.jsonl", CorpusSource(uri="x.jsonl"))
    with pytest.raises(Unusable, match="set the source's instructions to auto"):
        text_and_labels(pa.schema([("conversations", pa.string())]), plain.source)
    for fields in ({"messages": OPENAI}, {"instruction": "Who?", "output": "Ann."}):
        with pytest.raises(Unusable, match="set the source's instructions to auto"):
            from_fields(fields, 1, None, plain)


def test_personal_data_is_replaced_message_by_message() -> None:
    document = read({"paper": "Mail a@b.org.", "messages": [USER, ASSISTANT, {"role": "user", "content": "To c@d.org?"}, ASSISTANT]},
                    context_field="paper")  # fmt: skip
    params = CorpusParams(sources=(source(),), replace_personal_data=("email",), detect_language=False)
    cleaned = finished(document, params.sources[0], params, 10**6)
    assert isinstance(cleaned, Document)
    assert [content for _, content in messages(cleaned)] == ["Mail <EMAIL>.\n\nWho?", "Ann.", "To <EMAIL>?", "Ann."]
    assert cleaned.context is not None
    assert cleaned.text[slice(*cleaned.context)] == "Mail <EMAIL>."
    assert cleaned.changes == (("email", 2),)


def test_lines_tables_and_lists_are_read_alike(tmp_path: Path) -> None:
    records = [{"id": str(n), "messages": [USER, {"role": "assistant", "content": f"Ann {n}."}]} for n in range(5)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, [*records, {"messages": [USER]}])))
    (tmp_path / "b.json").write_text(json.dumps(records))
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "c.parquet", row_group_size=2)
    with (
        pa.OSFile(str(tmp_path / "d.arrow"), "wb") as file,
        pa.ipc.new_file(file, pa.Table.from_pylist(records).schema) as writer,
    ):
        writer.write_table(pa.Table.from_pylist(records))
    (tmp_path / "e.csv").write_text("instruction,input,output\nWho?,,Ann 0.\n")
    found = {}
    for name in ("a.jsonl", "b.json", "c.parquet", "d.arrow", "e.csv"):
        params = CorpusParams(sources=(source(uri=str(tmp_path / name)),), detect_language=False)
        read_there = [one for unit in plan_corpus(params).units for one in read_unit(unit, params)]
        found[name] = [one.text for one in read_there if isinstance(one, Document)]
        assert [one.reason for one in read_there if isinstance(one, Refused)] == ["no_answer"] * (name == "a.jsonl")
    assert found["e.csv"] == found["a.jsonl"][:1] == ["Who?\n\nAnn 0."]
    assert found["a.jsonl"] == found["b.json"] == found["c.parquet"] == found["d.arrow"]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"instructions": "no", "context_field": "paper"}, "context_field is for instruction data"),
        ({"instructions": "alpaca", "messages_field": "m"}, "messages_field is not for alpaca"),
        ({"repository": "files"}, "leave repository, format and format_field out"),
        ({"context_prompt": "{context}"}, "context_prompt must hold"),
    ],
)
def test_parameters_that_do_not_fit_together_are_one_sentence(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        source(**given)


def test_the_fields_change_no_digest_of_a_source_that_does_not_use_them() -> None:
    plain = CorpusSource(uri="x").model_dump(mode="json", exclude={"weight"})
    assert not {"instructions", "messages_field", "context_field", "context_prompt", "weight"} & plain.keys()
    assert source().model_dump(mode="json")["instructions"] == "auto"
