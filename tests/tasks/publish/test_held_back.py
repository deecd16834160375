"""A version that is not to be served is kept: `current` stays, a rollback passes over it, and a person reads why and what to try."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from data_schemas.errors import UserError
from data_schemas.params import PipelineParams
from flows.commands.outcome import print_outcome
from tasks.prefect_tasks.pages.elements import Page
from tasks.prefect_tasks.pages.release import release_pages
from tasks.publish.checks import failures
from tasks.publish.destinations.history import list_releases, rollback
from tasks.publish.releases import current_digest
from tasks.publish.standing import standing
from tasks.publish.verify import verify_release
from tests.heard import texts_into
from tests.tasks.release_example import FinishedRun, finished_run
from tests.tasks.small_release import served_folder


def worse(length: int) -> float:
    """Nats a token of a model that training spoilt, also for short prompts."""
    return 3.9 + length / 2048


def changed(run: FinishedRun, **publish: Any) -> PipelineParams:
    return run.params.model_copy(update={"publish": run.params.publish.model_copy(update=publish)})


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> FinishedRun:
    """A run whose model is worse than its base, published as the parameters say by default."""
    folder = tmp_path_factory.mktemp("spoilt")
    return finished_run(folder, tokenizer, fine_tuned=worse, destinations=(str(folder / "out"),))


def test_a_worse_model_is_kept_whole_but_not_served(spoilt: FinishedRun) -> None:
    told: list[str] = []
    release = spoilt.publish(texts_into(told))
    assert current_digest(spoilt.storage, "tiny") is None
    assert failures(verify_release(release.path)) == []
    assert any("is verified and kept, but not served" in line for line in told)
    for where in (spoilt.params.storage, *spoilt.params.publish.destinations):
        (row,) = list_releases(where)
        assert (row.digest, row.is_complete, row.is_current, row.is_held_back) == (release.digest, True, False, True)
    with pytest.raises(UserError, match=rf"No version in .* is served: name one, such as .*{release.digest}"):
        raise UserError(verify_release(spoilt.storage.root / "releases" / "tiny")[0].detail)
    with pytest.raises(UserError, match="has no current version to go back from"):
        rollback(spoilt.storage, "tiny")


def test_the_card_says_that_it_is_not_better(spoilt: FinishedRun) -> None:
    card = (spoilt.publish().path / "README.md").read_text()
    assert "**It is not shown to be better than its base.**" in card
    assert "a loss above 5% is shown" in card


def test_a_terminal_and_a_page_say_why_and_what_to_try(spoilt: FinishedRun, capsys: pytest.CaptureFixture[str]) -> None:
    release = spoilt.publish()
    command = f"ropeway rollback tiny {release.digest[:12]} --at {spoilt.params.storage}"
    status = print_outcome(spoilt.params, release.location)
    assert status is not None
    assert status.failed
    shown = capsys.readouterr().out.splitlines()
    assert shown[-1] == release.location
    assert f"  {command}" in shown
    said = " ".join(line.strip() for line in shown)
    page = next(page for page in release_pages(release, spoilt.params, [], []) if page.key == "release")
    assert isinstance(page, Page)
    for text in (
        "Not served: this version is kept, and tiny serves no version yet.",
        "Why: At 256 tokens: a loss above 5% against the base at 64 tokens is shown",
        "Why: Short prompts: a loss above 5% is shown",
        "Try: raise training.steps",
        "Try: lower training.learning_rate",
    ):
        assert text in said
        assert text in page.text.replace("\\", "")
    assert command in page.text.replace("\\", "")


def test_what_is_served_stays_until_a_person_says_otherwise(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    good = finished_run(tmp_path / "good", tokenizer)
    first = good.publish()
    bad = finished_run(tmp_path / "bad", tokenizer, fine_tuned=worse, dtype="float16")
    bad = replace(bad, storage=good.storage, params=bad.params.model_copy(update={"storage": good.params.storage}))
    second = bad.publish()
    assert current_digest(good.storage, "tiny") == first.digest
    status = standing(bad.params, second.digest, second.path)
    assert status.state == f"Not served: this version is kept, and tiny still serves {first.digest[:12]}."

    third = good.publish(params=changed(good, dtype="float32"))
    assert rollback(good.storage, "tiny").now == first.digest, "it passes over the version that was never served"

    rollback(good.storage, "tiny", second.digest)
    bad.publish()
    assert current_digest(good.storage, "tiny") == second.digest, "a person chose it, and publishing again leaves it"
    status = standing(bad.params, second.digest, second.path)
    assert status.state == "Served: it is the current version of tiny."
    assert not status.failed
    assert any(line.startswith("But: Short prompts") for line in status.lines())
    assert {row.digest for row in list_releases(good.params.storage) if row.is_held_back} == set()
    assert third.digest in {row.digest for row in list_releases(good.params.storage) if row.is_rolled_back}


def test_always_serves_the_same_version_and_never_serves_none(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    run = finished_run(tmp_path, tokenizer, fine_tuned=worse)
    kept = run.publish()
    served = run.publish(params=changed(run, current="always"))
    assert served.reused
    assert served.digest == kept.digest == current_digest(run.storage, "tiny")
    assert served_folder(run.storage, "tiny") == served.path

    wished = changed(run, current="never", dtype="float32")
    unwished = run.publish(params=wished)
    assert current_digest(run.storage, "tiny") == kept.digest
    status = standing(wished, unwished.digest, unwished.path)
    assert not status.failed
    assert "Why: publish.current is never." in status.lines()


def test_a_failed_gate_keeps_a_version_back(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    run = finished_run(tmp_path, tokenizer, max_short_context_loss=0.001, current="always")
    release = run.publish()
    assert current_digest(run.storage, "tiny") is None
    status = standing(run.params, release.digest, release.path)
    assert status.failed
    assert "publish.max_short_context_loss is 0.1%" in status.reasons[0]
    assert run.publish(params=changed(run, max_short_context_loss=0.1)).digest == release.digest
    assert current_digest(run.storage, "tiny") == release.digest
