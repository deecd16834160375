"""A key that stands twice is named with its file and both lines, in YAML and in JSON."""

import json

import pytest

from data_schemas.errors import UserError
from data_schemas.mapping_text import parse_json, parse_yaml
from data_schemas.params import ModelParams
from data_schemas.params_reading import load_params
from flows.config import load_config
from flows.deployments import definitions
from tasks.model.extended import rope_factors

MODEL = "model: {base: demo, target_length: 1024}\n"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("run_name: a\nstorage: x\nrun_name: b\n", "gives run_name twice, on lines 1 and 3: keep one of the two."),
        ("run_name: a\ntraining:\n  steps: 1\n  seed: 2\n  'steps': 3\n", "gives training.steps twice, on lines 3 and 5:"),
        ("training: {steps: 1, steps: 2}\n", "gives training.steps twice on line 1:"),
        ("corpus:\n  sources:\n  - uri: a\n    name: b\n    uri: c\n", "gives corpus.sources[0].uri twice, on lines 3 and 5:"),
        ('{"training":\n\t{"steps": 1,\n\t"steps": 2}}', "gives training.steps twice, on lines 2 and 3:"),
        ('{"training": {"steps": 1, "steps": 1}}', "gives training.steps twice on line 1:"),
    ],
)
def test_a_file_with_a_repeated_key_is_refused(tmp_path, text, sentence):
    path = tmp_path / "my.yaml"
    path.write_text(text)
    for read in (load_params, load_config):
        with pytest.raises(UserError) as caught:
            read(str(path))
        assert str(caught.value).startswith(f"{path} {sentence}")


def test_json_text_and_values_of_set_are_checked_too(tmp_path):
    with pytest.raises(UserError, match=r"the given JSON gives run_name twice on line 1"):
        load_params('{"run_name": "a", "run_name": "b"}')
    path = tmp_path / "my.yaml"
    path.write_text("run_name: a\ncorpus: {sources: [x]}\n" + MODEL)
    with pytest.raises(UserError, match=r"--set training=.* gives steps twice on line 1"):
        load_config(str(path), ['training={"steps": 1, "steps": 2}'])


def test_what_yaml_allows_stays_allowed():
    text = "a: &one {x: 1, y: 2}\nb: {<<: *one, y: 3}\nc: *one\nd: [*one, *one]\n"
    assert parse_yaml(text, "f") == {
        "a": {"x": 1, "y": 2},
        "b": {"x": 1, "y": 3},
        "c": {"x": 1, "y": 2},
        "d": 2 * [{"x": 1, "y": 2}],
    }
    assert parse_yaml("", "f") is None
    value = {"a": {"x": [1, {"x": 2}]}, "x": "\t:", "b": {"x": 1e-3}}
    assert parse_json(json.dumps(value), "f") == value


def test_factors_are_read_the_same_way(tmp_path):
    path = tmp_path / "factors.json"
    path.write_text('{"short_factor": [1.0],\n "long_factor": [2.0],\n "long_factor": [4.0]}')
    with pytest.raises(UserError, match=r"factors\.json gives long_factor twice, on lines 2 and 3: keep one of the two"):
        rope_factors(ModelParams(base="demo", target_length=2048, rope_method="longrope", rope_factors_file=str(path)))


def test_the_deployments_are_read_the_same_way(tmp_path, monkeypatch):
    path = tmp_path / "prefect.yaml"
    path.write_text("deployments:\n- name: nightly\n  parameters: {}\n  name: daily\n")
    monkeypatch.setattr("flows.deployments.DEFINITIONS", path)
    with pytest.raises(UserError, match=r"prefect.yaml gives deployments\[0\].name twice, on lines 2 and 4"):
        definitions()
