"""Credentials among parameters are refused without being repeated, by Ropeway and by Prefect's own check of the schema."""

import pytest
from prefect.utilities.schema_tools.validation import ValidationError, preprocess_schema, validate

from data_schemas.credentials import credential_in
from data_schemas.errors import UserError
from data_schemas.params import PipelineParams
from data_schemas.params_reading import validate_params

MODEL = {"base": "demo", "target_length": 1024}
HUB_TOKEN = "hf_" + "hunter2" * 5
ADDRESSES = [
    ("https://me:hunter2@host/x", "a password before its `@`"),
    ("s3://KEY:hunter2@bucket/x", "a password before its `@`"),
    ("zip://*.txt::sftp://me:hunter2@host/a.zip", "a password before its `@`"),
    ("https://hunter2@host/x", "a token before its `@`"),
    ("https://host/x?token=hunter2", "a key, token or signature after its `?`"),
    ("https://host/x?v=1&X-Amz-Signature=hunter2", "a key, token or signature after its `?`"),
    ("https://host/x?sv=2&SIG=hunter2", "a key, token or signature after its `?`"),
    ("https://host/x?AWSAccessKeyId=hunter2", "a key, token or signature after its `?`"),
    (f"https://host/{HUB_TOKEN}/x", "a token of the Hugging Face hub"),
    ("s3://AKIAHUNTER2HUNTER2HU/x".replace("HUNTER2HUNTER2HU", "IOSFODNN7EXAMPLE"), "an AWS access key"),
]


def given(source):
    return {"run_name": "a", "corpus": {"sources": ["texts", source]}, "model": MODEL}


@pytest.mark.parametrize(("uri", "kind"), ADDRESSES)
@pytest.mark.parametrize("as_object", [False, True])
def test_a_source_with_a_credential_is_refused(uri, kind, as_object):
    with pytest.raises(UserError) as caught:
        validate_params(given({"uri": uri} if as_object else uri), origin="my.yaml")
    where = "corpus.sources[1].uri" if as_object else "corpus.sources[1]"
    assert f"{where} contains {kind}: parameters are stored in Prefect's database" in str(caught.value)
    assert "environment" in str(caught.value)
    assert not any(secret in str(caught.value) for secret in ("hunter2", "AKIA"))


@pytest.mark.parametrize(
    ("groups", "where"),
    [
        (
            {"corpus": {"sources": [{"uri": "s3://b", "storage_options": {"secret": "hunter2"}}]}},
            "sources[0].storage_options.secret",
        ),
        ({"corpus": {"sources": [{"uri": "s3://b", "password": "hunter2"}]}}, "corpus.sources[0].password"),
        ({"corpus": {"sources": "s3://k:hunter2@b"}}, "corpus.sources contains a password"),
        ({"storage": "s3://k:hunter2@b"}, "storage contains a password"),
        ({"publish": {"destinations": ["hub:hunter2@org/name"]}}, "publish.destinations[0] contains a token"),
        ({"publish": {"token_secret": HUB_TOKEN}}, "publish.token_secret contains a token of the Hugging Face hub"),
        ({"training": {"steps": HUB_TOKEN}}, "training.steps contains"),
    ],
)
def test_every_parameter_is_checked(groups, where):
    with pytest.raises(UserError) as caught:
        validate_params(given("x") | groups, origin="my.yaml")
    assert where in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        "sftp://me@host/x",
        "abfs://container@account.dfs.core.windows.net/x",
        "https://host/a@b?version=3",
        "https://host/x?keyword=a&page=2",
        "https://host/x?token=",
        "s3://bucket/x?versionId=abc",
        "hf:org/hf_longcontext",
        "data/monkey=3/key=4",
        "/home/me/a:b@c",
    ],
)
def test_ordinary_addresses_stay(address):
    assert credential_in(address) == ""
    validate_params(given(address), origin="my.yaml")


def test_the_library_s_own_message_holds_none_either():
    with pytest.raises(ValueError, match="a password before its `@`") as caught:
        PipelineParams.model_validate({"corpus": {"sources": ["s3://k:hunter2@b"]}})
    assert "hunter2" not in str(caught.value)


def test_prefect_refuses_them_before_it_stores_a_run():
    schema = {"type": "object", "properties": {"params": {"$ref": "#/definitions/PipelineParams"}}, "required": ["params"]}
    whole = PipelineParams.model_json_schema(ref_template="#/definitions/{model}")
    schema |= {"definitions": whole.pop("$defs") | {"PipelineParams": whole}}

    def check(params):
        validate({"params": params}, preprocess_schema(schema), raise_on_error=True, preprocess=False)

    check(given("s3://bucket/x"))
    check(given({"uri": "s3://bucket/x"}))
    for uri, _ in ADDRESSES:
        for source in (uri, {"uri": uri}):
            with pytest.raises(ValidationError):
                check(given(source))
    for more in ({"storage": ADDRESSES[0][0]}, {"publish": {"destinations": [ADDRESSES[1][0]]}}):
        with pytest.raises(ValidationError):
            check(given("x") | more)
