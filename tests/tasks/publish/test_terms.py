"""What a release takes over from its base: licence, notices, and on the hub the commit that they were read at."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from data_schemas.errors import UserError
from data_schemas.params import ModelParams
from data_schemas.report import Report
from tasks.publish.base_identity import identify, terms_files
from tasks.publish.card import front_matter
from tests.hub_release_server import ATTRIBUTES, TOKEN, Repository, hub_release_server

NOTHING_MEASURED = Report.model_construct(perplexity=())
CARD = b"---\nlicense: other\nlicense_name: bridge-community\nlicense_link: https://example.org/terms\n---\n# Base\n"
FILES = {
    ".gitattributes": ATTRIBUTES,
    "README.md": CARD,
    "LICENSE": b"terms",
    "NOTICE.txt": b"notice",
    "USE_POLICY.md": b"policy",
    "config.json": b"{}",
    "license_checker.py": b"print()",
    "model.safetensors": b"weights",
}


@pytest.mark.usefixtures("servers")
def test_card_licence_and_notices_of_a_hub_base_are_those_of_the_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with hub_release_server() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        repository = hub.repositories["org/base"] = Repository(private=True)
        commit = repository.add("main", FILES, "base")
        repository.add("main", FILES | {"LICENSE": b"others"}, "later")
        base = identify(ModelParams(base="org/base", revision=commit, target_length=64))
        assert (base.name, base.revision, base.licence) == ("org/base", commit, "other")
        assert base.hub_id == "org/base"
        assert {path.name: path.read_bytes() for path in terms_files(base)} == {
            name: FILES[name] for name in ("LICENSE", "NOTICE.txt", "USE_POLICY.md")
        }
        assert not any("model.safetensors" in request for request in hub.requests)
        matter = front_matter("tiny", base, NOTHING_MEASURED)
        assert (matter["license"], matter["license_name"]) == ("other", "bridge-community")
        assert matter["license_link"] == "https://example.org/terms"
        with pytest.raises(UserError, match="The licence of the base org/none cannot be read from the hub"):
            identify(ModelParams(base="org/none", revision="0" * 40, target_length=64))


def test_a_card_names_its_base_only_by_a_hub_id(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(FILES["config.json"])
    folder = identify(ModelParams(base=str(tmp_path), target_length=64))
    assert (folder.name, folder.hub_id) == (tmp_path.name, None)
    assert not {"base_model", "base_model_relation"} & front_matter("tiny", folder, NOTHING_MEASURED).keys()
    named = identify(ModelParams(base=str(tmp_path), base_id="org/base-8k", target_length=64))
    assert (named.name, named.hub_id) == ("org/base-8k", "org/base-8k")
    matter = front_matter("tiny", named, NOTHING_MEASURED)
    assert (matter["base_model"], matter["base_model_relation"]) == ("org/base-8k", "finetune")
    demo = identify(ModelParams(base="demo", target_length=2048))
    assert (demo.name, demo.hub_id) == ("ropeway-demo-base", None)


@pytest.mark.parametrize("wrong", ["base", "/models/base", "org/base/x", "org/", "https://hub/org/base"])
def test_a_base_id_that_the_hub_could_not_have_is_refused(wrong: str) -> None:
    with pytest.raises(ValidationError):
        ModelParams(base="x", base_id=wrong, target_length=64)


@pytest.mark.parametrize(
    ("card", "licence", "in_card"),
    [
        ("---\nlicense: [apache-2.0, mit]\n---\n# x\n", "apache-2.0, mit", ["apache-2.0", "mit"]),
        ("---\nlicense: mit\n---", "mit", "mit"),
        ("\ufeff---\r\nlicense: mit\r\n---\r\n# x\r\n", "mit", "mit"),
        ("# no front matter\n", None, "other"),
    ],
)
def test_the_licence_of_a_card_in_every_form_it_is_written(
    tmp_path: Path, card: str, licence: str | None, in_card: object
) -> None:
    (tmp_path / "config.json").write_bytes(FILES["config.json"])
    (tmp_path / "README.md").write_text(card, encoding="utf-8", newline="")
    base = identify(ModelParams(base=str(tmp_path), target_length=64))
    assert base.licence == licence
    assert front_matter("tiny", base, NOTHING_MEASURED)["license"] == in_card


def test_a_licence_that_is_given_replaces_what_the_card_says(tmp_path: Path) -> None:
    for name in ("README.md", "config.json"):
        (tmp_path / name).write_bytes(FILES[name])
    base = identify(ModelParams(base=str(tmp_path), target_length=64, licence="MIT"))
    assert base.licence == "MIT"
    assert base.licence_card == {}
    assert terms_files(base) == []
