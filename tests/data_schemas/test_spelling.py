"""Addresses that are almost URIs are refused with the right spelling, wherever a parameter or a command takes one."""

import pytest

from data_schemas.errors import UserError
from data_schemas.params_reading import load_params, validate_params
from data_schemas.spelling import spelling_fault
from data_schemas.storage import Storage
from tasks.publish.destinations.address import place_at

MODEL = {"base": "demo", "target_length": 1024}
DESTINATION, SOURCE, BASE, PATH = ("hub",), ("hf", "stdlib"), ("",), ()


@pytest.mark.parametrize(
    ("address", "own", "right"),
    [
        ("hf:org/name", DESTINATION, "hub:org/name"),
        ("HUB:org/name", DESTINATION, "hub:org/name"),
        ("hub://org/name", DESTINATION, "hub:org/name"),
        ("hub: org/name", DESTINATION, "hub:org/name"),
        ("huggingface:org/name", DESTINATION, "hub:org/name"),
        ("hf://models/org/name", DESTINATION, "hub:org/name"),
        ("s3:bucket/x", DESTINATION, "s3://bucket/x"),
        ("s3:/bucket/x", PATH, "s3://bucket/x"),
        ("s3//bucket/x", PATH, "s3://bucket/x"),
        ("S3://bucket/x", PATH, "s3://bucket/x"),
        (" s3://bucket/x", PATH, "s3://bucket/x"),
        ("gs:bucket/x", PATH, "gs://bucket/x"),
        ("GS://bucket", SOURCE, "gs://bucket"),
        ("https:/host/x", SOURCE, "https://host/x"),
        ("file:/data/x", PATH, "file:///data/x"),
        ("file:data/x", PATH, "data/x"),
        ("FILE:///data/x", PATH, "file:///data/x"),
        ("zip:a.zip", SOURCE, "zip://::a.zip"),
        ("zip://*.txt::s3:bucket/a.zip", SOURCE, "zip://*.txt::s3://bucket/a.zip"),
        ("HF:name", SOURCE, "hf:name"),
        ("hub:org/name", SOURCE, "hf:org/name"),
        ("STDLIB:", SOURCE, "stdlib:"),
        ("hf:org/name", BASE, "org/name"),
        ("hub:org/name", BASE, "org/name"),
        ("https://huggingface.co/org/name/tree/main", BASE, "org/name"),
    ],
)
def test_the_right_spelling_is_offered(address, own, right):
    assert spelling_fault(address, own).startswith(f"write {right!r}")
    assert spelling_fault(right, own) == ""


@pytest.mark.parametrize(
    ("address", "own"),
    [
        ("hub:org/name", DESTINATION),
        ("hf:/data/set", SOURCE),
        ("hf://datasets/org/name/x.jsonl", SOURCE),
        ("stdlib:", SOURCE),
        ("zip://*.txt::/data/a.zip", SOURCE),
        ("simplecache::s3://bucket/x", SOURCE),
        ("memory://x", PATH),
        ("file:///data/x", PATH),
        ("./s3:bucket/x", PATH),
        ("/data/run:3/x", PATH),
        ("run:3", PATH),
        ("C:/data", PATH),
        ("data//x", PATH),
        ("file//x", PATH),
        ("org/name", BASE),
        ("texts", PATH),
    ],
)
def test_what_is_well_written_stays(address, own):
    assert spelling_fault(address, own) == ""


@pytest.mark.parametrize(
    ("groups", "sentence"),
    [
        (
            {"storage": "s3:bucket/x"},
            "storage 's3:bucket/x' is not an address: write 's3://bucket/x', or './s3:bucket/x' for a local",
        ),
        ({"storage": "hub:org/name"}, "the Hugging Face hub cannot be used here"),
        (
            {"corpus": {"sources": ["S3://bucket/x"]}},
            "corpus.sources[0] 'S3://bucket/x' is not an address: write 's3://bucket/x'",
        ),
        (
            {"corpus": {"sources": ["a", "hub:org/name"]}},
            "corpus.sources[1] 'hub:org/name' is not an address: write 'hf:org/name'",
        ),
        ({"corpus": {"sources": ["a"], "decontamination": {"prompt_files": ["s3:b/p"]}}}, "prompt_files[0] 's3:b/p'"),
        ({"model": MODEL | {"base": "hf:org/name"}}, "model.base 'hf:org/name' is not an address: write 'org/name'"),
        ({"model": MODEL | {"rope_method": "longrope", "rope_factors_file": "file:/f.json"}}, "write 'file:///f.json'"),
        ({"evaluation": {"qa_file": "gs:b/qa.jsonl"}}, "evaluation.qa_file 'gs:b/qa.jsonl' is not an address: write 'gs://b"),
        (
            {"publish": {"destinations": ["x", "hf:org/name"]}},
            "publish.destinations[1] 'hf:org/name' is not an address: write 'hub:org",
        ),
        ({"publish": {"destinations": ["HUB:org/name"]}}, "write 'hub:org/name'"),
    ],
)
def test_every_address_among_the_parameters_is_checked(groups, sentence):
    given = {"run_name": "a", "corpus": {"sources": ["texts"]}, "model": MODEL} | groups
    with pytest.raises(UserError) as caught:
        validate_params(given, origin="my.yaml")
    assert sentence in str(caught.value)


def test_commands_that_take_an_address_check_it_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for wrong in ("hf:org/name", "HUB:org/name", "s3:bucket/x", "S3://bucket/x"):
        with pytest.raises(UserError, match=r"is not an address: write .(hub:org|s3://bucket)"):
            place_at(wrong)
    with pytest.raises(UserError, match="The storage 's3:bucket/x' is not an address"):
        Storage("s3:bucket/x")
    with pytest.raises(UserError, match="The parameter file 's3:bucket/x' is not an address"):
        load_params("s3:bucket/x")
    assert not list(tmp_path.iterdir())
