"""Publishing: what a release holds, that it is the same every time, and that a failure or a kill publishes nothing."""

import json
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, PreTrainedTokenizerFast
from transformers import __version__ as transformers_version

from data_schemas.consumers import CONSUMERS
from data_schemas.errors import UserError
from data_schemas.report import read_report
from data_schemas.rope_search import SEARCHES
from data_schemas.serving_advice import ADVICE_FILE_NAME, ServingAdvice, ServingWay, read_advice
from data_schemas.storage import Artifact
from tasks.evaluate.report.result_files import recompute
from tasks.model.extended import load_arm
from tasks.model.rope_plan import plan_rope
from tasks.publish import release_stage as stage
from tasks.publish.card import _short_prompts
from tasks.publish.checks import failures
from tasks.publish.destinations.history import rollback
from tasks.publish.releases import current_digest
from tasks.publish.rounding import Rounding
from tasks.publish.verify import verify_release
from tasks.reorder import ChunkReorder
from tests.heard import texts_into
from tests.tasks.release_example import TARGET, FinishedRun, finished_run
from tests.tasks.small_release import served_folder


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> FinishedRun:
    orders = dict.fromkeys(("none", "random", "important_first_last", "reverse_rank"), 0.5)
    run = finished_run(tmp_path_factory.mktemp("run"), tokenizer, orders=orders, reorder_strategy="reverse_rank")
    run.publish()
    return run


@pytest.fixture(scope="module")
def release(published: FinishedRun) -> Path:
    path = served_folder(published.storage, "tiny")
    assert path is not None
    return path


def versions(run: FinishedRun) -> list[str]:
    folder = run.storage.root / "releases" / "tiny" / "versions"
    return sorted(p.name for p in folder.iterdir()) if folder.exists() else []


def staged(run: FinishedRun) -> list[Path]:
    return list((run.storage.root / ".staging").iterdir())


def test_a_release_passes_every_check(published: FinishedRun, release: Path) -> None:
    assert failures(verify_release(release)) == []
    assert failures(verify_release(release.parents[1])) == []  # by way of `current`
    assert staged(published) == []


def test_the_checksums_are_what_sha256sum_reads(release: Path) -> None:
    result = subprocess.run(["sha256sum", "--strict", "-c", "SHA256SUMS"], cwd=release, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout
    listed = {line.split(": ")[0] for line in result.stdout.splitlines()}
    present = {p.relative_to(release).as_posix() for p in release.rglob("*") if p.is_file()}
    assert present - listed == {"SHA256SUMS", "manifest.json"}


def test_the_published_model_is_the_fine_tuned_arm_in_the_published_type(published: FinishedRun, release: Path) -> None:
    expected = load_arm(published.params, "fine_tuned", published.checkpoint.path).to(torch.bfloat16)
    model = AutoModelForCausalLM.from_pretrained(release, dtype="auto")
    assert model.dtype == torch.bfloat16
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter, expected.get_parameter(name), rtol=0, atol=0)
    assert AutoTokenizer.from_pretrained(release).model_max_length == TARGET


def test_the_adapter_in_its_folder_gives_the_same_model(published: FinishedRun, release: Path) -> None:
    from peft import PeftModel
    from transformers import AutoConfig

    base = AutoModelForCausalLM.from_pretrained(
        published.params.model.base, config=AutoConfig.from_pretrained(release), dtype=torch.float32
    )
    adapted = PeftModel.from_pretrained(base, release / "adapter").eval()
    merged = load_arm(published.params, "fine_tuned", published.checkpoint.path)
    tokens = torch.arange(100)[None]
    with torch.inference_mode():
        torch.testing.assert_close(adapted(tokens).logits, merged(tokens).logits, rtol=1e-4, atol=1e-4)


def test_the_probes_see_beyond_the_base_window(release: Path) -> None:
    probes = json.loads((release / "verification" / "probes.json").read_text())["probes"]
    assert probes[1]["position_ids"][-1] == TARGET - 1
    logits = load_file(release / "verification" / "logits.safetensors")["logits"]
    # the second probe's tokens are the first's, so only attention over the spread positions can tell them apart
    assert (logits[0] - logits[1]).abs().max() > 1e-2


def test_the_card_is_one_the_hub_reads(release: Path) -> None:
    card = ModelCard.load(release / "README.md")
    report = json.loads((release / "evaluation" / "report.json").read_text())
    measured = [round(row["perplexity"], 4) for row in report["perplexity"] if row["arm"] == "fine_tuned"]
    assert [result.metric_value for result in card.data.eval_results] == measured
    assert card.data.license == "apache-2.0"
    assert card.data.base_model is None, "a folder's name is not a hub id, so it would link to nothing or to another model"
    assert "](evaluation/perplexity.png)" in card.text


def test_nothing_names_a_folder_of_this_machine(published: FinishedRun, release: Path) -> None:
    root = str(published.storage.root.parent).encode()
    for path in release.rglob("*"):
        if path.is_file():
            assert root not in path.read_bytes(), path.name
            assert b"somebody" not in path.read_bytes(), path.name
    assert (release / "LICENSE").read_text() == "Do as you like.\n"


@pytest.mark.slow
def test_every_figure_can_be_computed_again_from_the_release(release: Path, tmp_path: Path) -> None:
    report = read_report(release / "evaluation" / "report.json")
    assert recompute(release / "evaluation", tmp_path) == report
    for name in ("perplexity.png", "report.html", "report.md"):
        assert (tmp_path / name).read_bytes() == (release / "evaluation" / name).read_bytes()
    assert "(evaluation/report.html)" in (release / "README.md").read_text()
    assert report.settings.qa_file == "questions.jsonl"


def test_the_reorder_config_applies_from_the_release(published: FinishedRun, release: Path) -> None:
    for source in (release, release.parents[1]):
        assert ChunkReorder.load(source).apply(["a", "b", "c", "d", "e"]) == ["a", "c", "e", "d", "b"]
    curve = ChunkReorder.load(release).config.recall_by_position
    assert [(p.length, p.depth) for p in curve if p.recall == 1.0] == [(64, 0.0), (64, 1.0), (TARGET, 0.0), (TARGET, 1.0)]


@pytest.mark.slow
def test_the_order_that_was_measured_best_is_the_default_and_the_card_says_why(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    orders = {"none": 0.4, "random": 0.4, "important_first_last": 0.5, "reverse_rank": 0.9}
    release = finished_run(tmp_path, tokenizer, orders=orders).publish().path
    config = ChunkReorder.load(release).config
    assert config.strategy == "reverse_rank"
    assert config.validated is not None
    assert config.validated.is_distinguishable
    assert ChunkReorder.load(release).apply(["a", "b", "c"]) == ["c", "b", "a"]
    assert recompute(release / "evaluation", tmp_path / "again").reorder_decision == config.validated
    card = (release / "README.md").read_text()
    assert re.search(r"\| reverse_rank \(chosen\) \| all \| 90 \[\d+, \d+\] \| \+50 \[", card)
    assert "- **Does the order of passages matter? Yes.** Use reverse_rank" in card
    assert f"Measured on this model: {config.validated.reason}" in card
    assert failures(verify_release(release)) == []

    path = release / "chunk_reorder.json"
    told = json.loads(path.read_text())
    told["validated"]["table"][1]["mean"] = 0.99
    path.write_text(json.dumps(told))
    assert "`validated` differs from the report's decision" in "; ".join(failures(verify_release(release)))


def test_the_card_says_which_server_was_run_and_which_were_judged(release: Path) -> None:
    [ran] = [line for line in (release / "README.md").read_text().splitlines() if "run: " in line]
    assert ran.startswith(f"| transformers {CONSUMERS['transformers-5'].version} | yes |")
    assert f"run: {transformers_version} loaded these files before they were published" in ran


def test_where_no_order_wins_first_last_is_marked_as_not_distinguishable(release: Path) -> None:
    config = ChunkReorder.load(release).config
    assert config.strategy == "important_first_last"
    assert config.validated is not None
    assert not config.validated.is_distinguishable
    assert "reverse_rank was requested, but no order was measurably better, so it is important_first_last." in config.note
    assert "(here: `important_first_last`, no order was measurably better)" in (release / "README.md").read_text()


def test_publishing_again_writes_nothing_but_a_pointer_that_moved(published: FinishedRun, release: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in release.parents[1].rglob("*")}
    assert published.publish().reused
    assert {p: p.stat().st_mtime_ns for p in release.parents[1].rglob("*")} == before
    pointer = release.parents[1] / "current"
    for text in ("0123456789abcdef\n", "../../etc"):
        pointer.write_text(text)
        assert published.publish().reused
        assert pointer.read_text() == f"{release.name}\n"


@pytest.mark.parametrize("method", ["linear", "dynamic", "ntk", "llama3", "longrope"])
@pytest.mark.slow
def test_every_rope_method_is_published_and_the_same_bytes_twice(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, method: str
) -> None:
    first = finished_run(tmp_path / "one", tokenizer, method, reorder_strategy="calibrated").publish()
    second = finished_run(tmp_path / "two", tokenizer, method, reorder_strategy="calibrated").publish()
    assert first.path != second.path
    assert first.digest == second.digest
    assert (first.path / "manifest.json").read_bytes() == (second.path / "manifest.json").read_bytes()
    assert ("vllm serve" in (first.path / "README.md").read_text()) == (method != "dynamic")


def test_two_lists_are_published_with_what_short_prompts_lose_where_a_server_does_not_switch(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    release = finished_run(tmp_path, tokenizer, "longrope_switching").publish().path
    assert failures(verify_release(release)) == []
    written = json.loads((release / "config.json").read_text())["rope_parameters"]
    assert written["short_factor"] == [1.0] * 4
    card = (release / "README.md").read_text()
    (line,) = [line for line in card.splitlines() if "`short_factor`" in line]
    assert "as transformers 5 does: 1.019" in line
    assert "use `long_factor` for them too: 1.28" in line
    assert "- 25 % of the ordinary rows were cut at 64 tokens" in card
    assert "vllm serve" not in card


def test_a_release_that_does_not_verify_is_not_published(
    published: FinishedRun, release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = stage.assemble

    def assemble_and_damage(directory: Path, *parts: object) -> Rounding:
        rounding = real(directory, *parts)  # type: ignore[arg-type]
        config = json.loads((directory / "config.json").read_text())
        for spelling in ("rope_parameters", "rope_scaling"):
            config[spelling]["factor"] = 2.0
        (directory / "config.json").write_text(json.dumps(config))
        return rounding

    monkeypatch.setattr(stage, "assemble", assemble_and_damage)
    other = published.params.model_copy(update={"publish": published.params.publish.model_copy(update={"dtype": "float16"})})
    before = versions(published)
    with pytest.raises(UserError, match="was not published") as refusal:
        published.publish(params=other)
    for seen in (
        "config.json has other content than recorded",
        "logits",
        "RoPE in the reloaded model",
        "RoPE as vllm reads it",
    ):
        assert seen in str(refusal.value)
    assert versions(published) == before
    assert staged(published) == []
    assert served_folder(published.storage, "tiny") == release


@pytest.mark.slow
def test_a_damaged_version_does_not_become_current_again(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    run = finished_run(tmp_path, tokenizer)
    release = run.publish()
    pointer = release.path.parents[1] / "current"
    pointer.unlink()
    weights = release.path / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(UserError, match=r"model\.safetensors has other content than recorded"):
        run.publish()
    assert not pointer.exists()


@pytest.mark.slow
def test_a_rollback_outlives_a_run_with_nothing_new_but_not_one_with_something_new(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    run = finished_run(tmp_path, tokenizer)
    old = run.publish()
    new = run.params.model_copy(update={"publish": run.params.publish.model_copy(update={"dtype": "float32"})})
    digest = run.publish(params=new).digest
    rollback(run.storage, "tiny", old.digest)
    told: list[str] = []
    assert run.publish(texts_into(told), new).digest == digest
    assert current_digest(run.storage, "tiny") == old.digest
    assert f"`ropeway rollback tiny {digest} --at {run.params.storage}` serves it again" in told[-1]
    newer = new.model_copy(update={"publish": run.params.publish.model_copy(update={"dtype": "float16"})})
    newest = run.publish(params=newer).digest
    assert current_digest(run.storage, "tiny") == newest


KILLED = """
    import os, signal, sys
    from pathlib import Path
    from data_schemas.params import PipelineParams
    from data_schemas.storage import Artifact, Storage, read_manifest
    from tasks.publish import assemble, release_stage as stage

    params = PipelineParams.model_validate_json(sys.argv[1])
    artifacts = [Artifact(Path(path), read_manifest(Path(path)), True) for path in sys.argv[3:]]
    def die(*_): os.kill(os.getpid(), signal.SIGKILL)
    if sys.argv[2] == "before the pointer moves":
        stage.point_current = die
    if sys.argv[2] == "verifying it":
        stage.verify_staged = die
    stage.run(params, Storage(params.storage), *artifacts, lambda event: None)
"""


@pytest.mark.parametrize("moment", ["verifying it", "before the pointer moves"])
@pytest.mark.slow
def test_sigkill_leaves_current_as_it_was_and_the_next_run_finishes(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, moment: str
) -> None:
    run = finished_run(tmp_path, tokenizer)
    old = run.publish()
    new = run.params.model_copy(update={"publish": run.params.publish.model_copy(update={"dtype": "float32"})})
    parents = [str(a.path) for a in (run.documents, run.shards, run.checkpoint, run.evaluation)]
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED), new.model_dump_json(), moment, *parents], capture_output=True, text=True
    )
    assert result.returncode == -signal.SIGKILL, result.stderr
    assert served_folder(run.storage, "tiny") == old.path
    assert failures(verify_release(run.storage.root / "releases" / "tiny")) == []

    finished = run.publish(params=new)
    assert finished.reused == (moment == "before the pointer moves")
    assert served_folder(run.storage, "tiny") == finished.path
    assert failures(verify_release(finished.path)) == []
    assert staged(run) == []
    if finished.reused:  # another process wrote it; this one writes the same bytes
        written = (finished.path / "manifest.json").read_bytes()
        shutil.rmtree(finished.path)
        assert (run.publish(params=new).path / "manifest.json").read_bytes() == written


def test_a_model_in_several_shards_verifies(published: FinishedRun) -> None:
    publish = published.params.publish.model_copy(update={"shard_gigabytes": 2e-5})
    release = published.publish(params=published.params.model_copy(update={"run_name": "sharded", "publish": publish}))
    assert len(list(release.path.glob("model-*.safetensors"))) > 1
    assert failures(verify_release(release.path)) == []


@pytest.mark.parametrize("kind", [SafetensorError, Exception])  # as safetensors and tokenizers raise it
def test_a_full_disk_is_one_sentence_and_leaves_nothing(
    published: FinishedRun, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    def no_space(*_: object) -> None:
        raise kind("No space left on device (os error 28)")

    monkeypatch.setattr(stage, "assemble", no_space)
    other = published.params.model_copy(update={"run_name": "full"})
    with pytest.raises(UserError, match="No space left"):
        published.publish(params=other)
    assert staged(published) == []
    assert served_folder(published.storage, "full") is None


def test_measured_advice_becomes_a_file_of_the_release(published: FinishedRun) -> None:
    way = ServingWay(name="full/base", way="full", arm="base", window=64)
    told = ServingAdvice(
        corpus="c", checkpoint=None, questions_from="documents", confidence=0.95, ways=(way,), results=(), comparisons=(), advice=(),
        overall="Nothing is long.",
    )  # fmt: skip

    def make(folder: Path) -> dict[str, str]:
        (folder / ADVICE_FILE_NAME).write_text(told.model_dump_json())
        return {}

    advice = published.storage.build("advices", stage="advise", params={}, code_version=1, parents={}, make=make)
    with_it = published.publish(advice=advice)
    assert read_advice(with_it.path) == told
    assert failures(verify_release(with_it.path)) == []
    assert with_it.manifest.parents["advice"] == advice.digest
    assert published.publish().digest != with_it.digest


def test_on_an_extended_base_the_card_names_the_length_at_which_programs_switch(release: Path) -> None:
    report = read_report(release / "evaluation" / "report.json")
    lists = {"short_factor": [1.0] * 4, "long_factor": [1.0, 2.0, 3.0, 4.0]}
    config = LlamaConfig(
        hidden_size=32, num_attention_heads=4, max_position_embeddings=64, original_max_position_embeddings=32,
        rope_parameters={"rope_type": "longrope", "rope_theta": 1e4, "factor": 2.0, **lists},
    )  # fmt: skip
    plan = plan_rope(config, TARGET, factors=lists, two_lists=True)
    assert (plan.base_window, plan.short_length) == (64, 32)
    text = _short_prompts(report, plan)
    assert text.startswith("Prompts of at most 32 tokens have frequencies of their own")
    assert text.count("not measured") == 2, "the report compares at the base's window"
    assert _short_prompts(report, plan, "the trained list stays").endswith("measured after training: the trained list stays.")


def test_a_release_says_which_search_chose_its_rope_and_why(published: FinishedRun, release: Path) -> None:
    def search(of: str) -> Artifact:
        told = {"chosen": "yarn", "verdict": f"The factors found for {of} do not beat yarn."}
        return published.storage.build(
            SEARCHES, stage="search-rope", params={"of": of}, code_version=1, parents={}, make=lambda _: told
        )

    kept = json.loads((published.checkpoint.path / "rope_plan.json").read_text())["reason"]
    assert kept.startswith("yarn was asked for, or chosen by a search of factors; "), "a checkpoint serves both runs"
    for name in ("README.md", "rope_plan.json"):
        assert "yarn was asked for; " in (release / name).read_text()
    last, first = search("the last"), search("the first")
    found = published.publish(searches={"rope_search": last, "rope_search_1": first})
    assert failures(verify_release(found.path)) == []
    assert found.manifest.parents["rope_search"] == last.digest
    card = (found.path / "README.md").read_text()
    assert f"yarn was chosen by a search of factors (rope_searches/{last.digest});" in card
    assert "- The search: The factors found for the last do not beat yarn." in card
    for text in (card, (found.path / "rope_plan.json").read_text()):
        assert "was asked for" not in text
    stages = json.loads((found.path / "provenance.json").read_text())["stages"]
    assert (stages["rope_search"]["digest"], stages["rope_search"]["chosen"]) == (last.digest, "yarn")
    assert stages["rope_search"]["verdict"] == "The factors found for the last do not beat yarn."
    assert stages["rope_search_1"]["digest"] == first.digest
