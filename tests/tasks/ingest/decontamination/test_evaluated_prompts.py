"""Evaluation prompts are read from files, or refused with a sentence."""

import gzip
import json
from pathlib import Path

import pytest

from data_schemas.errors import UserError
from tasks.ingest.decontamination.evaluated_prompts import Prompt, read_prompts


def test_prompts_of_text_and_json_lines(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("\ufeffWhat is\nthis?", encoding="utf-8")
    lines = [{"prompt": "First", "answer": "no"}, {"question": "Second?", "input": "of it\u2028here", "text": 3}]
    (tmp_path / "exam.jsonl").write_text("\n\n".join(json.dumps(x, ensure_ascii=False) for x in lines), encoding="utf-8")
    (tmp_path / "exam.jsonl.gz").write_bytes(gzip.compress(b'{"text": "zipped"}\n'))
    (tmp_path / "qa.NDJSON").write_text('{"question": "Who?", "answers": ["He"], "gold": "He did.", "passages": ["She."]}\n')
    names = [str(tmp_path / name) for name in ("one.txt", "exam.jsonl", "exam.jsonl.gz", "qa.NDJSON")]
    assert read_prompts(names) == [
        Prompt(names[0], "What is\nthis?"),
        Prompt(f"{names[1]}:1", "First"),
        Prompt(f"{names[1]}:3", "Second?\nof it\u2028here"),
        Prompt(f"{names[2]}:1", "zipped"),
        Prompt(f"{names[3]}:1", "Who?\nHe did."),
    ]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, r"exam.jsonl' in .*do not exist: correct the path\.$"),
        (b"\xff\xfe", r"not UTF-8 \(byte 0\)"),
        (b'{"text": "a"}\n{"text": ', r"exam.jsonl, line 2, are not valid JSON"),
        (b'{"text": 1}', r"line 1, has no text in any of the fields text, prompt, question, input, gold"),
        (b"[]", r"line 1, has no text"),
    ],
)
def test_prompt_files_that_cannot_be_used(tmp_path: Path, content: bytes | None, complaint: str) -> None:
    path = tmp_path / "exam.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=complaint):
        read_prompts([str(path)])


def test_a_folder_and_an_unknown_protocol_are_refused(tmp_path: Path) -> None:
    for name in (str(tmp_path), "nosuch://bucket/exam.txt"):
        with pytest.raises(UserError, match="cannot be read"):
            read_prompts([name])
