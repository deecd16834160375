"""The prompts of an evaluation, read from files, for decontamination."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from data_schemas.addresses import without_secrets
from data_schemas.errors import UserError
from data_schemas.params import PipelineParams
from tasks.ingest.reading.file_formats import container_of
from tasks.ngrams.word_ngrams import num_words_of

PROMPT_FIELDS = ("text", "prompt", "question", "input", "gold")
MIN_PROMPT_WORDS = 8  # shorter ones occur everywhere; from this length on, a prompt shorter than an n-gram is matched whole


@dataclass(frozen=True)
class Prompt:
    """`name` is the file as the user wrote it, with `:LINE` for a line of a JSONL file. For `evaluation.qa_file` it is the
    parameter's name, because the file's path must not change the digest."""

    name: str
    text: str


def evaluated_prompts(params: PipelineParams) -> list[Prompt]:
    """Prompts that training documents are compared with: those of the prompt files and of `evaluation.qa_file`.

    Raises UserError for a file that cannot be used.
    """
    if not params.corpus.decontamination.enabled:
        return []
    prompts = read_prompts(params.corpus.decontamination.prompt_files)
    return [*prompts, *_of_questions(params.evaluation.qa_file)] if params.evaluation.qa_file else prompts


def _of_questions(path: str) -> Iterator[Prompt]:
    """Each example's question, gold passage, and answers of at least MIN_PROMPT_WORDS words.

    Its `passages` are left out: they do not hold the answer, and may come from the training corpus on purpose, as the other
    results of a search.
    """
    from tasks.evaluate.prompts.qa import read_qa

    for example in read_qa(path):
        name = f"evaluation.qa_file:{example.line}"
        yield Prompt(f"{name} question", example.question)
        yield Prompt(f"{name} gold", example.gold)
        for number, answer in enumerate(example.answers):
            if num_words_of(answer) >= MIN_PROMPT_WORDS:
                yield Prompt(f"{name} answers[{number}]", answer)


def read_prompts(prompt_files: Sequence[str]) -> list[Prompt]:
    """The prompts in order: one for each line of a `.jsonl` or `.ndjson` file, and one for any other file.

    A line's prompt is its string fields among PROMPT_FIELDS, joined. Files may be local or fsspec URIs, and compressed.

    Raises:
        UserError: a file that cannot be read, is not UTF-8, or has a line without a prompt.
    """
    return [prompt for name in prompt_files for prompt in _of_file(name)]


def _of_file(name: str) -> Iterator[Prompt]:
    text = _read(name)
    is_jsonl = container_of(name) == "jsonl"
    name = without_secrets(name)
    if not is_jsonl:
        yield Prompt(name, text)
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield Prompt(f"{name}:{number}", _of_line(line, f"{name}, line {number},"))


def _read(name: str) -> str:
    import fsspec

    shown = without_secrets(name)
    try:
        with fsspec.open(name, "rb", compression="infer") as file:
            data: bytes = file.read()
        return data.decode("utf-8-sig")
    except FileNotFoundError:
        raise UserError(
            f"The evaluation prompts {shown!r} in corpus.decontamination.prompt_files do not exist: correct the path."
        ) from None  # what a library says may hold secrets
    except UnicodeDecodeError as error:
        raise UserError(f"The evaluation prompts {shown!r} are not UTF-8 (byte {error.start}): convert them.") from error
    except (OSError, ValueError, ImportError) as error:
        raise UserError(
            f"The evaluation prompts {shown!r} in corpus.decontamination.prompt_files cannot be read ({_kind(error)}): correct "
            "the path."
        ) from None


def _kind(error: Exception) -> str:
    return os.strerror(error.errno) if isinstance(error, OSError) and error.errno else type(error).__name__


def _of_line(line: str, where: str) -> str:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"The evaluation prompts in {where} are not valid JSON ({error}): correct that line.") from error
    found = [fields[name] for name in PROMPT_FIELDS if isinstance(fields.get(name), str)] if isinstance(fields, dict) else []
    if not found:
        raise UserError(
            f"{where} has no text in any of the fields {', '.join(PROMPT_FIELDS)}: give the prompt's field one of these names."
        )
    return "\n".join(found)
