"""The stage and what packing makes of it: shares, ledger, workers and refusals."""

import copy
import re
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from data_schemas.data_card import data_card
from data_schemas.errors import UserError
from data_schemas.ledger import ledger_of
from data_schemas.params import PipelineParams
from data_schemas.params_reading import validate_params
from data_schemas.retrieval_params import FAMILIES
from data_schemas.storage import Artifact, Storage
from ray_jobs.finetune.training.batches import read_micro_batch
from ray_jobs.finetune.training.stated_weights import StatedWeights
from tasks.pack import shards_stage
from tasks.pack.reading import open_rows
from tasks.prefect_tasks.pages.packing import packing_page
from tasks.publish.base_identity import BaseIdentity
from tasks.publish.provenance import provenance
from tasks.retrieval import retrieval_stage
from tasks.retrieval.settings import check_retrieval, writable_symbols
from tasks.retrieval.weights import MAX_ANSWER_WEIGHT
from tasks.tokens.encoding import encoder_of
from tasks.work import Workers, local_workers
from tests.golden.inputs import byte_tokenizer, workers_here, write_base, write_documents
from tests.tasks.retrieval.made_texts import prose, write_parts

TARGET = 1024
PARTS, PER_PART, CHARS = 3, 7, 9000


def params_of(folder: Path, **retrieval: Any) -> PipelineParams:
    return PipelineParams.model_validate(mapping_of(folder, **retrieval))


def mapping_of(folder: Path, **retrieval: Any) -> dict[str, Any]:
    return {
        "run_name": "r", "storage": str(folder / "storage"), "corpus": {"sources": [{"uri": "x", "name": "x"}]},
        "model": {"base": str(folder / "base"), "target_length": TARGET}, "retrieval": {"share": 0.2} | retrieval,
    }  # fmt: skip


def documents_in(folder: Path, per_part: int = PER_PART, num_chars: int = CHARS) -> Artifact:
    if not (folder / "base").exists():
        write_base(folder / "base", window=64)

    def make(path: Path) -> dict[str, Any]:
        return write_parts(path, PARTS, per_part, num_chars)

    given = {"per_part": per_part, "num_chars": num_chars}
    return Storage(str(folder / "storage")).build(
        "documents", stage="test", params=given, code_version=1, parents={}, make=make
    )


def retrieved(folder: Path, documents: Artifact, num_workers: int = 1, **retrieval: Any) -> Artifact:
    def workers_for(num_bytes: int) -> AbstractContextManager[Workers]:
        return local_workers(num_workers)

    storage = Storage(str(folder / "storage"))
    return retrieval_stage.run(params_of(folder, **retrieval), storage, documents, workers_for, lambda _: None)


def packed(folder: Path, documents: Artifact, **retrieval: Any) -> Artifact:
    storage = Storage(str(folder / "storage"))
    return shards_stage.run(params_of(folder, **retrieval), storage, documents, workers_here, lambda _: None)


def rows_of(artifact: Artifact) -> list[dict[str, Any]]:
    return pa.concat_tables([pq.read_table(path) for path in sorted(artifact.path.glob("*.parquet"))]).to_pylist()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("retrieval")


@pytest.fixture(scope="module")
def shards(folder: Path) -> Artifact:
    return packed(folder, documents_in(folder))


@cache
def texts_of(documents: Path) -> dict[str, tuple[str, str]]:
    found = pa.concat_tables([pq.read_table(path) for path in sorted(documents.glob("*.parquet"))]).to_pylist()
    return {row["doc_id"]: (row["split"], row["text"]) for row in found}


def test_each_training_stage_has_the_mix_that_it_states(folder: Path) -> None:
    lookups = {"target_length": TARGET, "retrieval_share": 0.5, "retrieval_families": ["key_value_rounds"]}
    given = mapping_of(folder, share=0, families=["keyword"]) | {"training": {"stages": [lookups, {"target_length": TARGET}]}}
    documents, storage = documents_in(folder), Storage(str(folder / "storage"))
    packed_rows = [
        shards_stage.run(stage, storage, documents, workers_here, lambda _: None)
        for stage in PipelineParams.model_validate(given).by_stage()
    ]
    told = [shards.manifest.summary.get("retrieval") for shards in packed_rows]
    assert told[0]["reached"] == pytest.approx(0.5, abs=0.05)
    assert [of_family["family"] for of_family in told[0]["families"]] == ["key_value_rounds"]
    assert told[1] is None


def test_a_run_gets_its_share_from_training_text_alone_in_all_families(folder: Path, shards: Artifact) -> None:
    told = shards.manifest.summary["retrieval"]
    assert told["wanted"] == 0.2
    assert told["reached"] == pytest.approx(0.2, abs=0.5 * TARGET / shards.manifest.summary["num_tokens"] + 1e-6)
    assert [of_family["family"] for of_family in told["families"]] == sorted(FAMILIES)
    made = rows_of(retrieved(folder, documents_in(folder)))
    texts = texts_of(documents_in(folder).path)
    heldout = [text for split, text in texts.values() if split == "heldout"]
    for row in made:
        assert {texts[doc_id][0] for doc_id in row["made_from"]} == {"train"}
        lines = [line for line in row["text"].split("\n") if len(line) > 100]
        assert not any(line[:100] in text for text in heldout for line in lines)


def test_packed_rows_carry_the_weights_and_attend_in_full(folder: Path, shards: Artifact) -> None:
    by_id = {f"{row['doc_id']}:0": row for row in rows_of(retrieved(folder, documents_in(folder)))}
    rows = open_rows(shards.path)
    seen = []
    for number in range(len(rows)):
        row, ids = rows.row(number), rows.chunk_ids(number)
        if ids[0] not in by_id:
            assert "loss_weights" not in row
            assert "full_attention" not in row
            continue
        made = by_id[ids[0]]
        seen.append(ids[0])
        assert row["input_ids"].tolist() == made["input_ids"]
        assert row["loss_weights"].tolist() == made["loss_weights"]
        assert row["full_attention"].tolist() == [True]
        assert len(made["input_ids"]) == TARGET
        is_answer = np.array(made["is_answer"])
        reached = min((TARGET - 1) / 2, MAX_ANSWER_WEIGHT * is_answer.sum())
        assert row["loss_weights"][is_answer].sum() == pytest.approx(reached, rel=1e-4)
    assert len(seen) == len(set(seen)) == sum(f["documents"] for f in shards.manifest.summary["retrieval"]["families"])
    heldout = open_rows(shards.path / "heldout")
    assert all("loss_weights" not in heldout.row(i) for i in range(len(heldout)))


def test_the_summary_says_what_share_of_the_loss_answers_reached(folder: Path) -> None:
    made = retrieved(folder, documents_in(folder))
    shares = [np.array(row["loss_weights"])[row["is_answer"]].sum() / (TARGET - 1) for row in rows_of(made)]
    told = made.manifest.summary["answer_share"]
    assert told == {"wanted": 0.5, "reached": pytest.approx(np.mean(shares), abs=1e-5)}
    few = retrieved(folder, documents_in(folder), families=["fill_in"], questions=1).manifest.summary["answer_share"]
    assert 0 < few["reached"] < 0.3, "a word of less than 20 letters, 16 times, in 1,024 tokens"


def test_ledger_and_card_say_what_share_each_family_has(folder: Path, shards: Artifact) -> None:
    ledger = ledger_of(shards.manifest.summary)
    assert ledger is not None
    ledger.check()
    assert ledger.total("read").documents == PARTS * PER_PART
    assert ledger.total("made").documents == retrieved(folder, documents_in(folder)).manifest.summary["num_documents"]
    for of_family in shards.manifest.summary["retrieval"]["families"]:
        packed = ledger.total("packed", f"retrieval/{of_family['family']}")
        assert (packed.documents, packed.tokens) == (of_family["documents"], of_family["tokens"])
    card = data_card(TARGET, shards.manifest.summary)
    assert card is not None
    page = card.markdown()
    assert "## Retrieval documents" in page
    assert f"{shards.manifest.summary['retrieval']['reached']:.1%} of the packed tokens" in page
    assert "retrieval/key\\_value" in page


def test_provenance_and_page_say_the_share(folder: Path, shards: Artifact) -> None:
    params = params_of(folder)
    base = BaseIdentity(name="b", revision=None, fingerprint="f", licence="l", folder=folder)
    told = provenance(params, base, {"shards": shards.manifest}, {})
    assert told["retrieval"] == shards.manifest.summary["retrieval"]
    assert told["seeds"]["retrieval.seed"] == 0
    reached = f"{shards.manifest.summary['retrieval']['reached']:.1%}"
    assert f"| kind | retrieval documents | 20.0% | {reached} |" in packing_page(shards, params).text


def test_held_out_text_in_retrieval_documents_counts_as_seen(tmp_path: Path) -> None:
    write_base(tmp_path / "base", window=64)
    passage = prose(99, 600)
    texts = {"kept": ("heldout", "plain", passage), "short": ("train", "plain", f"{prose(98, 200)}\n\n{passage}")}
    texts |= {f"long {n}": ("train", "plain", prose(n, CHARS)) for n in range(4)}
    storage = Storage(str(tmp_path / "storage"))
    documents = storage.build(
        "documents", stage="t", params={}, code_version=1, parents={}, make=lambda path: write_documents(path, texts)
    )
    base = {"base": str(tmp_path / "base"), "target_length": 2048}
    packing = {"bucket_repeats": {1024: 0, 512: 0}}  # leaves `short` out
    seen = {}
    for share, seed in ((0, 0), (0.5, 0), (0.5, 1), (0.5, 2)):
        mapping = mapping_of(tmp_path, share=share, seed=seed, families=["keyword"]) | {"model": base, "packing": packing}
        made = shards_stage.run(PipelineParams.model_validate(mapping), storage, documents, workers_here, lambda _: None)
        seen[share, seed] = made.manifest.summary["heldout_seen"]["share"]
    assert seen.pop((0, 0)) == 0
    assert max(seen.values()) > 0.5  # with some seeds the text of `short` is among what half of the tokens need


def test_the_ledger_counts_what_could_not_be_made(tmp_path: Path) -> None:
    documents = documents_in(tmp_path, per_part=2)  # one for training: no other document for negatives
    made = packed(tmp_path, documents, families=["hard_negatives", "position"])
    ledger = ledger_of(made.manifest.summary)
    assert ledger is not None
    told = made.manifest.summary["retrieval"]["not_made"]["hard_negatives"]
    counted = {line.reason: line.documents for line in ledger.lines if line.step == "not_made"}
    assert told == counted
    assert sum(told.values()) > 0
    assert {f["family"] for f in made.manifest.summary["retrieval"]["families"]} == {"position"}


def test_text_that_no_kind_can_use_is_passed_over(tmp_path: Path) -> None:
    write_base(tmp_path / "base", window=64)
    table = "\n".join(" ".join(f"{7919 * (10 * line + n) % 99991:05d}" for n in range(10)) for line in range(150))
    texts = {f"prose {n}": ("train", "plain", prose(n, 5000)) for n in range(6)} | {"table": ("train", "plain", table)}
    documents = Storage(str(tmp_path / "storage")).build(
        "documents", stage="t", params={}, code_version=1, parents={}, make=lambda path: write_documents(path, texts)
    )
    for seed in range(4):  # the documents are in another order with each
        made = retrieved(tmp_path, documents, share=0.3, families=["fill_in"], seed=seed)
        told = made.manifest.summary
        assert told["num_documents"] == told["num_wanted"] > 10
        assert [row["doc_id"] for row in rows_of(made)] == [f"retrieval-00000-{n:06d}" for n in range(told["num_documents"])]
    seen = told["not_made"]["fill_in"]
    assert set(seen) == {"no sentence that can be asked about"}
    [warning] = retrieved(tmp_path, documents, share=0.5, families=["fill_in"], questions=1).manifest.summary["warnings"]
    assert re.search(
        r"\d+ retrieval documents could be made, not \d+ \(most often: no sentence that can be asked about\)", warning
    )


def test_the_training_step_weights_what_the_shards_state(shards: Artifact) -> None:
    rows = open_rows(shards.path)
    marked = next(i for i in range(len(rows)) if "loss_weights" in rows.row(i))
    plain = next(i for i in range(len(rows)) if "loss_weights" not in rows.row(i))
    batch = read_micro_batch(rows, [plain, marked], torch.device("cpu"))
    num_plain = len(rows.row(plain)["input_ids"])
    weigh = StatedWeights().of_batch(batch, lambda _: torch.empty(0))
    of_targets = weigh(slice(None), torch.empty(0))
    assert torch.equal(of_targets[: num_plain - 1], torch.ones(num_plain - 1))
    assert of_targets[num_plain:-1].tolist() == rows.row(marked)["loss_weights"][1:].tolist()
    assert batch.in_full is not None
    assert batch.in_full[0].tolist() == [False] * num_plain + [True] * TARGET
    unmarked = read_micro_batch(rows, [plain], torch.device("cpu"))
    assert unmarked.loss_weights is None
    assert unmarked.in_full is None


def test_workers_do_not_change_a_byte(tmp_path: Path, folder: Path) -> None:
    made, alone = retrieved(tmp_path, documents_in(tmp_path), 2), retrieved(folder, documents_in(folder))
    assert [entry.sha256 for entry in made.manifest.files] == [entry.sha256 for entry in alone.manifest.files]


def test_without_a_share_nothing_is_made_and_shards_are_as_before(tmp_path: Path) -> None:
    documents = documents_in(tmp_path)
    shards = packed(tmp_path, documents, share=0)
    assert not (tmp_path / "storage" / "retrieval").exists()
    assert "retrieval" not in shards.manifest.summary
    assert set(shards.manifest.parents) == {"documents", "tokenizer", "spacy"}


def test_families_can_be_held_out(tmp_path: Path) -> None:
    made = retrieved(tmp_path, documents_in(tmp_path), heldout_families=["keyword", "fill_in"])
    assert {row["family"] for row in rows_of(made)} == set(FAMILIES) - {"keyword", "fill_in"}


def test_text_that_budgets_keep_out_of_ordinary_rows_is_still_for_retrieval_documents(tmp_path: Path) -> None:
    write_base(tmp_path / "base", window=64)
    storage = Storage(str(tmp_path / "storage"))

    def make(path: Path) -> dict[str, Any]:
        return write_parts(path, PARTS, PER_PART, CHARS, first_source="lookups")

    documents = storage.build("documents", stage="test", params={}, code_version=1, parents={}, make=make)
    mapping = mapping_of(tmp_path, families=["key_value"], share=0.4) | {
        "corpus": {"sources": [{"uri": "x", "name": "x"}, {"uri": "lookups", "name": "lookups"}]},
        "packing": {"budgets": [{"source": "lookups", "repeats": 0}]},
    }
    params = PipelineParams.model_validate(mapping)
    shards = shards_stage.run(params, storage, documents, workers_here, lambda _: None)
    assert shards.manifest.summary["retrieval"]["reached"] == pytest.approx(0.4, abs=0.05)
    made = retrieval_stage.run(params, storage, documents, lambda _: local_workers(1), lambda _: None)
    made_from = {f"{row['doc_id']}:0": row["made_from"] for row in rows_of(made)}
    rows = open_rows(shards.path)
    packed_ids = [chunk for number in range(len(rows)) for chunk in rows.chunk_ids(number)]
    lookups = [doc_id for chunk in packed_ids for doc_id in made_from.get(chunk, ())]
    assert any(doc_id.startswith("p0") for doc_id in lookups)
    ordinary = [chunk for chunk in packed_ids if chunk not in made_from]
    assert ordinary
    assert not any(chunk.startswith("p0") for chunk in ordinary)


def test_repeated_text_gets_no_repeated_retrieval_documents(tmp_path: Path) -> None:
    documents = documents_in(tmp_path)
    mapping = mapping_of(tmp_path) | {"packing": {"bucket_repeats": {TARGET: 3}}}
    shards = shards_stage.run(
        PipelineParams.model_validate(mapping), Storage(str(tmp_path / "storage")), documents, workers_here, lambda _: None
    )
    told = shards.manifest.summary["retrieval"]
    assert told["reached"] < 0.1
    assert any("none is repeated" in warning for warning in shards.manifest.summary["warnings"])


# -- refusals


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"share": 0.6}, r"retrieval\.share"),
        ({"families": ["key_values"]}, r"retrieval\.families"),
        ({"families": []}, r"retrieval\.families"),
        ({"families": ["keyword", "keyword"]}, "names a kind twice"),
        ({"families": ["keyword"], "heldout_families": ["keyword"]}, "none is left to train"),
    ],
)
def test_wrong_parameters_are_one_sentence(given: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=told):
        validate_params(mapping_of(tmp_path, **given), origin="the test")


def test_a_kernel_that_cannot_weight_is_refused(tmp_path: Path) -> None:
    mapping = mapping_of(tmp_path) | {"training": {"loss_kernel": "torch"}}
    with pytest.raises(UserError, match=r"cannot weight tokens as retrieval\.share asks"):
        validate_params(mapping, origin="the test")


def test_rows_too_short_for_a_family_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    mapping = mapping_of(tmp_path) | {"model": {"base": "x", "target_length": 64}}
    with pytest.raises(UserError, match=r"Rows of 64 tokens are too short for retrieval\.families key_value"):
        check_retrieval(PipelineParams.model_validate(mapping), byte_tokenizer())


def test_a_corpus_without_enough_text_is_refused(tmp_path: Path) -> None:
    documents = documents_in(tmp_path, per_part=2, num_chars=300)
    with pytest.raises(UserError, match="No retrieval document of 1024 tokens could be made"):
        retrieved(tmp_path, documents)


def test_a_share_of_less_than_one_document_is_refused(tmp_path: Path) -> None:
    documents = documents_in(tmp_path, per_part=2)
    with pytest.raises(UserError, match=r"retrieval\.share 0\.001 of .* less than one document"):
        packed(tmp_path, documents, share=0.001)


def test_a_tokenizer_that_cannot_write_the_names_is_refused(tmp_path: Path) -> None:
    raw = Tokenizer(models.WordLevel({"<unk>": 0, "one": 1, "two": 2}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>")
    with pytest.raises(UserError, match=r"neither Latin letters nor digits, which retrieval\.families key_value needs"):
        check_retrieval(params_of(tmp_path), tokenizer)


@pytest.mark.parametrize(
    ("cased", "symbols"),
    [("none", ("letters", "capitals", "digits")), ("lower", ("letters", "digits")), ("upper", ("digits",))],
)
def test_names_are_of_the_letters_that_a_tokenizer_keeps(cased: str, symbols: tuple[str, ...]) -> None:
    tokenizer = copy.deepcopy(byte_tokenizer())
    changes = {"lower": normalizers.Lowercase(), "upper": normalizers.Replace(Regex("[a-z]"), "X")}
    if cased in changes:
        tokenizer.backend_tokenizer.normalizer = changes[cased]
    assert writable_symbols(encoder_of(tokenizer)) == symbols
