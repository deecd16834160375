"""The files that published tasks need, as the user gives them in `evaluation.published_data`; nothing is downloaded.

Everything that can be missing is refused by `refuse_missing` before any work. `read_*` then give the contents.
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data_schemas.errors import UserError
from data_schemas.evaluation_params import EvaluationParams
from tasks.evaluate.published.ruler_questions import QuestionSet, hotpotqa_questions, squad_questions

_HOW = {
    "essays": "RULER's PaulGrahamEssays.json, which its download_paulgraham_essay.py makes",
    "squad": "SQuAD's dev-v2.0.json",
    "hotpotqa": "HotpotQA's hotpot_dev_distractor_v1.json",
    "lost_in_the_middle": "the folder with the authors' nq-open-*.jsonl.gz and kv-retrieval-*.jsonl.gz",
    "longppl_evaluator": "the folder of the model that chooses LongPPL's key tokens",
}
_NEEDED = {
    "ruler": ("essays", "squad", "hotpotqa"),
    "lost_in_the_middle": ("lost_in_the_middle",),
    "longppl": ("longppl_evaluator",),
}
_MIDDLE_FILE = re.compile(r"nq-open-\d+_total_documents_gold_at_\d+\.jsonl(\.gz)?|kv-retrieval-\d+_keys\.jsonl(\.gz)?")


def refuse_missing(evaluation: EvaluationParams) -> None:
    """UserError, in one sentence, if a file or package that evaluation.published needs is missing."""
    data = evaluation.published_data
    for name in evaluation.published:
        for needed in _NEEDED.get(name, ()):
            if not getattr(data, needed):
                raise UserError(
                    f"evaluation.published asks for {name}, which needs evaluation.published_data.{needed}: give {_HOW[needed]}, "
                    f"or leave {name} out."
                )
    for field, path in data:
        if path and not Path(path).expanduser().exists():
            raise UserError(f"evaluation.published_data.{field} {path} does not exist: give an existing path.")
    if "longppl" in evaluation.published and not Path(data.longppl_evaluator or "").expanduser().is_dir():
        raise UserError(
            f"evaluation.published_data.longppl_evaluator {data.longppl_evaluator} is not a folder: give {_HOW['longppl_evaluator']}."
        )
    if "lost_in_the_middle" in evaluation.published and not middle_files(evaluation):
        raise UserError(
            f"evaluation.published_data.lost_in_the_middle {data.lost_in_the_middle} has no file of the authors' names: "
            f"give {_HOW['lost_in_the_middle']}."
        )
    if "ruler" in evaluation.published:
        _refuse_missing_packages()


def _refuse_missing_packages() -> None:
    for package in ("wonderwords", "nltk"):
        if importlib.util.find_spec(package) is None:
            raise UserError(
                f"evaluation.published asks for ruler, which needs the package {package}: run `pip install 'ropeway[published]'`."
            )
    sentence_splitter()


def data_files(evaluation: EvaluationParams) -> dict[str, Path]:
    """The given files that decide what is measured, by a name for each; folders of models are left out."""
    data = evaluation.published_data
    files = {
        name: Path(path).expanduser() for name, path in data if path and name not in ("lost_in_the_middle", "longppl_evaluator")
    }
    return files | {path.name: path for path in middle_files(evaluation)}


def evaluator_files(evaluation: EvaluationParams) -> dict[str, Path]:
    """The files of the model that chooses LongPPL's key tokens, where it is asked for."""
    folder = evaluation.published_data.longppl_evaluator
    if not folder or "longppl" not in evaluation.published:
        return {}
    files = sorted(f for f in Path(folder).expanduser().iterdir() if f.suffix in (".json", ".safetensors", ".bin", ".model"))
    return {f"longppl_evaluator/{file.name}": file for file in files}


def middle_files(evaluation: EvaluationParams) -> list[Path]:
    """The authors' data files of *Lost in the Middle*, sorted by name; also from subfolders."""
    folder = evaluation.published_data.lost_in_the_middle
    if not folder:
        return []
    return sorted(
        (f for f in Path(folder).expanduser().rglob("*.jsonl*") if _MIDDLE_FILE.fullmatch(f.name)), key=lambda f: f.name
    )


def read_essays(evaluation: EvaluationParams) -> str:
    """The essays end to end. UserError if the file is not RULER's JSON."""
    data = _json(evaluation.published_data.essays, "essays")
    if not isinstance(data, dict) or not isinstance(data.get("text"), str) or not data["text"].strip():
        raise UserError(
            f"evaluation.published_data.essays {evaluation.published_data.essays} has no `text`: give {_HOW['essays']}."
        )
    return data["text"]


def read_questions(evaluation: EvaluationParams, dataset: str) -> QuestionSet:
    """`squad` or `hotpotqa`. UserError if the file does not have that form."""
    path = getattr(evaluation.published_data, dataset)
    data = _json(path, dataset)
    try:
        found = squad_questions(data) if dataset == "squad" else hotpotqa_questions(data)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"evaluation.published_data.{dataset} {path} has another form ({error!r}): give {_HOW[dataset]}."
        ) from error
    if not found.questions:
        raise UserError(f"evaluation.published_data.{dataset} {path} has no question: give {_HOW[dataset]}.")
    return found


def read_english_words(evaluation: EvaluationParams) -> list[str]:
    """Words for `cwe` at long lengths, in the file's order; empty where no file is given."""
    path = evaluation.published_data.english_words
    return [str(word) for word in _json(path, "english_words").values()] if path else []


def sentence_splitter() -> Callable[[str], list[str]]:
    """NLTK's English Punkt, as RULER uses it. UserError if its data is not on this machine."""
    import nltk

    try:
        nltk.data.find("tokenizers/punkt_tab/english/")
    except LookupError as error:
        raise UserError(
            "RULER splits essays with NLTK's Punkt, whose data is not here: run `python -m nltk.downloader punkt_tab`, or set "
            "NLTK_DATA to a folder that has it."
        ) from error
    split: Callable[[str], list[str]] = nltk.tokenize.sent_tokenize
    return split


def _json(path: str | None, field: str) -> Any:
    try:
        return json.loads(Path(path or "").expanduser().read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        detail = " ".join(str(error).split())[:150]
        raise UserError(
            f"evaluation.published_data.{field} {path} cannot be read as JSON ({detail}): give another file."
        ) from error
