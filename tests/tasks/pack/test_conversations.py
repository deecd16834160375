"""Instruction data through ingest, packing and a training step: rows, counts, refusals, and transformers' own masks and loss."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from data_schemas.errors import UserError
from data_schemas.ledger import ledger_of
from data_schemas.params import PipelineParams
from data_schemas.params_reading import validate_params
from data_schemas.storage import Artifact, Storage
from ray_jobs.finetune.training.batches import read_micro_batch
from ray_jobs.finetune.training.loss import next_token_targets, weighted_cross_entropy
from ray_jobs.finetune.training.stated_weights import StatedWeights
from tasks.evaluate.heldout import read_heldout
from tasks.ingest import documents_stage
from tasks.model.base_model import base_fingerprint, load_tokenizer
from tasks.pack import shards_stage
from tasks.pack.conversation_sequences import check_instructions
from tasks.pack.reading import open_rows
from tasks.prefect_tasks.pages.packing import packing_page
from tasks.publish.base_identity import BaseIdentity
from tasks.publish.provenance import provenance
from tests.golden.inputs import byte_tokenizer, prose, story, workers_here, write_base

TARGET = 512
# Tags around the answers are for transformers' own mask; the base's template has none.
TAGGED = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system here') }}{% endif %}[{{ m.role }}] "
    "{% if m.role == 'assistant' %}{% generation %}{{ m.content + '</s>' }}{% endgeneration %}{% else %}{{ m.content }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}[assistant] {% endif %}"
)
TEMPLATE = TAGGED.replace("{% generation %}", "").replace("{% endgeneration %}", "")
NUM_CHATS, NUM_PAPERS = 24, 6


def write_corpus(folder: Path) -> None:
    write_base(folder / "base", window=64)
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder / "base")
    (folder / "texts").mkdir()
    for number in range(8):
        (folder / "texts" / f"{number}.md").write_text(story(number, 6))
    user, answer = {"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Ann."}
    chats: list[dict[str, Any]] = [
        {
            "id": f"c{n}",
            "conversations": [{"from": "human", "value": prose(50 + n, 1)}, {"from": "gpt", "value": prose(90 + n, 1)}],
        }
        for n in range(NUM_CHATS)
    ]
    chats += [
        {"messages": [user, answer, answer]},
        {"messages": [{"role": "system", "content": "Be brief."}, user, answer]},  # the template fails
        {"messages": [user, answer | {"content": prose(5, 60)}]},  # too long, and without a document to cut
    ]
    papers = [
        {"paper": prose(300 + n, 40), "instruction": f"Which are {n}{q}?", "output": prose(400 + 2 * n + q, 1)}
        for n in range(NUM_PAPERS)
        for q in range(2)
    ]
    (folder / "chats").mkdir()
    (folder / "chats" / "README.md").write_text("What these conversations are about.")  # as a data set from a hub has one
    for name, records in (("chats/chats", chats), ("papers", papers)):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, records)))


def params_of(folder: Path, weights: tuple[int, ...] = (), **packing: Any) -> PipelineParams:
    sources: list[dict[str, Any]] = [
        {"uri": str(folder / "texts")},
        {"uri": str(folder / "chats"), "instructions": "auto"},
        {"uri": str(folder / "papers.jsonl"), "instructions": "alpaca", "context_field": "paper"},
    ]
    sources = [source | {"weight": weight} for source, weight in zip(sources, weights, strict=True)] if weights else sources
    corpus = {"sources": sources, "heldout_fraction": 0.3, "split_seed": 3, "detect_language": False}
    given = {"run_name": "r", "storage": str(folder / "storage"), "corpus": corpus, "packing": packing}
    return validate_params(given | {"model": {"base": str(folder / "base"), "target_length": TARGET}}, "a test")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("conversations")
    write_corpus(home)
    return home


def packed(folder: Path, weights: tuple[int, ...] = (), **packing: Any) -> tuple[Artifact, Artifact]:
    params, told = params_of(folder, weights, **packing), lambda event: None
    storage = Storage(params.storage)
    documents = documents_stage.run(params, storage, workers_here, told)
    return documents, shards_stage.run(params, storage, documents, workers_here, told)


@pytest.fixture(scope="module")
def made(folder: Path) -> tuple[Artifact, Artifact]:
    return packed(folder, long_conversations="cut_context", full_attention_conversations=True)


def messages_of(documents: Artifact) -> dict[str, tuple[list[dict[str, str]], str]]:
    """The messages of each conversation, and its side of the split."""
    found = {}
    for file in sorted(documents.path.glob("documents-*.parquet")):
        for row in pq.read_table(file).to_pylist():
            if "turns" in row:
                talk = [{"role": t["role"], "content": row["text"][t["start"] : t["end"]]} for t in row["turns"]]
                found[row["doc_id"]] = (talk, row["split"])
    return found


def sequences(directory: Path) -> list[tuple[str, np.ndarray, np.ndarray, bool]]:
    """(document, ids, weights, whether it attends in full) of each sequence."""
    rows, found = open_rows(directory), []
    for index in range(len(rows)):
        row = rows.row(index)
        ends = np.cumsum(row["seq_lengths"])
        weights = row.get("loss_weights", np.ones(len(row["input_ids"]), np.float32))
        marks = row.get("full_attention", np.zeros(len(ends), bool)).tolist()
        for chunk, end, length, mark in zip(rows.chunk_ids(index), ends, row["seq_lengths"], marks, strict=True):
            found.append((chunk.split(":")[0], row["input_ids"][end - length : end], weights[end - length : end], mark))
    return found


def test_rows_hold_the_ids_and_masks_of_transformers(folder: Path, made: tuple[Artifact, Artifact]) -> None:
    documents, shards = made
    outsider = AutoTokenizer.from_pretrained(folder / "base", chat_template=TAGGED)
    talks, seen = messages_of(documents), {"train": 0, "heldout": 0}
    special = outsider.bos_token_id, outsider.eos_token_id
    for split, directory in (("train", shards.path), ("heldout", shards.path / "heldout")):
        for document, ids, weights, attends_in_full in sequences(directory):
            if document not in talks:
                assert (weights.min(), attends_in_full) == (1, False)
                continue
            talk, side = talks[document]
            assert (side, attends_in_full) == (split, True)
            theirs = outsider.apply_chat_template(talk, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
            expected, mask = theirs["input_ids"], theirs["assistant_masks"]
            first = 0 if special[0] not in ids else 1
            if len(expected) + first > TARGET:  # cut: the question and its answer are there, the document's end is not
                text = outsider.decode(ids[first:])
                assert TARGET - TARGET // 64 <= len(ids) <= TARGET
                assert outsider.decode(ids[weights > 0]) == talk[1]["content"] + "</s>"
                assert text.endswith(talk[0]["content"].split("\n\n")[1] + "[assistant] " + talk[1]["content"] + "</s>")
            else:
                assert ids[first:].tolist() == expected
                assert weights[first:].astype(int).tolist() == mask
            seen[split] += 1
    assert min(seen.values()) > 5


def test_everything_is_counted(made: tuple[Artifact, Artifact]) -> None:
    documents, shards = made
    assert documents.manifest.summary["quarantined"] == {"roles_out_of_order": 1, "no_messages": 1}
    summary = shards.manifest.summary
    told, ledger = summary["instructions"], ledger_of(summary)
    assert ledger is not None
    left_out = pq.read_table(shards.path / "quarantine.parquet").to_pylist()
    assert {(row["reason"], row["record"]) for row in left_out} == {
        ("template_failed", NUM_CHATS + 2),
        ("too_long", NUM_CHATS + 3),
    }
    assert told["left_out"] == {"template_failed": 1, "too_long": 1}
    assert any("2 conversations are left out (1 template_failed, 1 too_long)" in warning for warning in summary["warnings"])
    talks = messages_of(documents)
    of_rows = [(ids, weights) for document, ids, weights, _ in sequences(shards.path) if document in talks]
    assert told["conversations"] == told["answers"] == len(of_rows)
    assert told["tokens"] == sum(len(ids) for ids, _ in of_rows)
    assert told["answer_tokens"] == sum(int(weights.sum()) for _, weights in of_rows)
    assert told["cut"] > 0
    every = sequences(shards.path)
    mean = sum(float(weights[1:].sum()) for _, _, weights, _ in every) / sum(len(ids) - 1 for _, ids, _, _ in every)
    assert open_rows(shards.path).mean_loss_weight == pytest.approx(mean)
    dropped = {line.reason: line for line in ledger.summed() if line.step == "dropped"}
    by_split = [row for row in left_out if row["reason"] in dropped]  # the held-out ones are in no line
    assert sum(dropped[row["reason"]].documents for row in by_split) == len(by_split)
    assert dropped["context cut"].documents == 0
    assert dropped["context cut"].tokens > 0
    packed_papers = ledger.total("packed", "papers.jsonl")
    assert packed_papers.documents == told["cut"]
    page = (shards.path / "README.md").read_text()
    assert f"{told['conversations']} conversations with {told['answers']} answers" in page
    params, base = params_of(shards.path), BaseIdentity("b", None, "f", None, shards.path)
    said = provenance(params, base, {"shards": shards.manifest}, {})
    assert f"| kind | instruction data |  | {told['share']:.1%} |" in packing_page(shards, params).text
    assert said["instructions"] == told


def test_the_loss_is_that_of_masked_labels(folder: Path, made: tuple[Artifact, Artifact]) -> None:
    _, shards = made
    rows = open_rows(shards.path)
    index = next(i for i in range(len(rows)) if "loss_weights" in rows.row(i))
    batch = read_micro_batch(rows, [index], torch.device("cpu"))
    model = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32).eval()
    plain, total, count = rows.row(index), 0.0, 0
    for end, length in zip(np.cumsum(plain["seq_lengths"]), plain["seq_lengths"], strict=True):
        ids = torch.tensor(plain["input_ids"][end - length : end].astype(np.int64))
        labels = torch.where(torch.tensor(plain["loss_weights"][end - length : end]) > 0, ids, -100)
        labels[0] = -100
        num = int((labels[1:] >= 0).sum())
        with torch.no_grad():
            total += float(model(ids[None], labels=labels[None]).loss) * num if num else 0.0
        count += num
    with torch.no_grad():
        positions = batch.position_ids
        hidden = torch.cat(
            [model.model(batch.input_ids[:, end - n : end]).last_hidden_state[0]
             for end, n in zip(np.cumsum(plain["seq_lengths"]), plain["seq_lengths"], strict=True)]
        )  # fmt: skip
        targets = next_token_targets(batch.input_ids[0], positions[0])
        stated = StatedWeights(mean=rows.mean_loss_weight)
        sums = weighted_cross_entropy(model.lm_head, hidden, targets, 64, stated.of_batch(batch, lambda _: torch.empty(0)))
    assert float(sums.weights) == count
    assert float(sums.weighted) == pytest.approx(total, rel=1e-5)


def test_conversations_that_are_too_long_are_left_out_by_default_and_attend_in_groups(folder: Path) -> None:
    documents, shards = packed(folder)
    num_papers = sum(len(talk[0]["content"]) > 2 * TARGET for talk, _ in messages_of(documents).values())
    told = shards.manifest.summary["instructions"]
    assert told["left_out"] == {"template_failed": 1, "too_long": 1 + num_papers}
    assert num_papers > NUM_PAPERS
    assert (told["cut"], told["full_attention"]) == (0, False)
    assert not any(mark for *_, mark in sequences(shards.path))


def test_weights_of_sources_hold_for_conversations_too(folder: Path) -> None:
    _, shards = packed(folder, (4, 1, 2), long_conversations="cut_context")
    reached = {share["name"]: (share["wanted"], share["reached"]) for share in shards.manifest.summary["sources"]}
    assert reached.keys() == {"texts", "chats", "papers.jsonl"}
    for wanted, share in reached.values():
        assert share == pytest.approx(wanted, abs=0.06)
    told = shards.manifest.summary["instructions"]
    assert told["share"] == pytest.approx(3 / 7, abs=0.06)
    assert told["tokens"] == sum(len(ids) for _, ids, weights, _ in sequences(shards.path) if weights.min() == 0)


def test_perplexity_is_measured_on_documents_and_on_conversations_only_without_any(
    made: tuple[Artifact, Artifact], tmp_path: Path
) -> None:
    documents, _ = made
    talks = messages_of(documents)
    found = dict(read_heldout(documents.path, min_bytes=1))
    assert found
    assert not talks.keys() & found.keys()
    for file in documents.path.glob("documents-*.parquet"):
        if "turns" in pq.read_schema(file).names:
            (tmp_path / file.name).write_bytes(file.read_bytes())
    alone = dict(read_heldout(tmp_path, min_bytes=1))
    assert alone.keys() == {document for document, (_, split) in talks.items() if split == "heldout"}


@pytest.mark.parametrize(
    ("template", "told"),
    [
        (None, "has no chat template.*choose an instruct base, or give a template in model.chat_template"),
        (
            "{{ raise_exception('not today') }}",
            "cannot be trained on: the chat template fails: .*not today; correct the template",
        ),
    ],
)
def test_a_base_that_no_conversation_can_be_written_for_is_refused(template: str | None, told: str, folder: Path) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = template
    with pytest.raises(UserError, match=told):
        check_instructions(params_of(folder), tokenizer)
    params = params_of(folder)
    (folder / "own.jinja").write_text(TEMPLATE)
    given = params.model.model_copy(update={"chat_template": str(folder / "own.jinja")})
    check_instructions(params, load_tokenizer(given))
    assert base_fingerprint(given) != base_fingerprint(params.model)
    with pytest.raises(UserError, match=r"cannot be read \(FileNotFoundError\): give a Jinja file"):
        load_tokenizer(given.model_copy(update={"chat_template": str(folder / "none.jinja")}))
    plain = PipelineParams.model_validate(
        {"run_name": "r", "corpus": {"sources": ["x"]}, "model": {"base": "b", "target_length": 64}}
    )
    check_instructions(plain, tokenizer)
