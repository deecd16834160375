"""Every file that a cluster reads obeys its published schema, and a typo in any of its names does not."""

import copy
import functools
import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.deploy.objects import DEPLOY, KUBERNETES, applied, documents, problems, read

# Maps whose names are the user's own.
FREE = {"labels", "matchLabels", "requests", "limits", "capacity", "rayStartParams", "nodeSelector"}

OBJECTS = (
    {f"{kind}-{name}": object_ for (kind, name), object_ in applied().items()}
    | {f"kind-{kind}-{name}": object_ for (kind, name), object_ in applied("kind").items()}
    | {"redis-RayCluster": applied("gcs-redis")["RayCluster", "ropeway"]}
    | {"RayJob": read(KUBERNETES / "rayjob.yaml")}
)


def misspelt(object_: Any) -> Iterator[tuple[str, Any]]:
    """The object with one name misspelt, for each name in it that a schema knows."""
    whole = json.loads(json.dumps(object_))  # also takes YAML's shared nodes apart
    for mapping in _mappings(whole):
        for name in list(mapping):
            mapping[name + "X"] = mapping.pop(name)
            yield name, whole
            mapping[name] = mapping.pop(name + "X")


def _mappings(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
        for name, value in list(node.items()):
            if name not in FREE and not (name == "selector" and "matchLabels" not in value):
                yield from _mappings(value)
    elif isinstance(node, list):
        for value in node:
            yield from _mappings(value)


@pytest.mark.parametrize("name", OBJECTS)
def test_each_object_obeys_its_schema_and_no_misspelt_one_does(name):
    assert problems(OBJECTS[name]) == []
    seen = 0
    for typo, object_ in misspelt(OBJECTS[name]):
        assert problems(object_), f"{typo}X is accepted"
        seen += 1
    assert seen > 3


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "rayVersion"), 2.6),
        (("spec", "enableInTreeAutoscaling"), "yes"),
        (("spec", "autoscalerOptions", "upscalingMode"), "Fast"),
        (("spec", "authOptions", "mode"), "basic"),
        (("spec", "headGroupSpec", "rayStartParams", "num-cpus"), 0),
        (("spec", "workerGroupSpecs", 0, "maxReplicas"), "4"),
        (("spec", "workerGroupSpecs", 0, "minReplicas"), -1),
        (("spec", "workerGroupSpecs", 1, "template", "spec", "containers", 0, "ports"), [{"containerPort": "http"}]),
    ],
)
def test_a_wrong_value_in_the_ray_cluster_is_found(path, value):
    cluster = copy.deepcopy(applied()["RayCluster", "ropeway"])
    node = cluster
    for step in path[:-1]:
        node = node[step]
    node[path[-1]] = value
    assert problems(cluster)


def test_every_manifest_is_applied_or_named_for_what_it_is():
    resources = {*read(KUBERNETES / "kustomization.yaml")["resources"], "kustomization.yaml", "rayjob.yaml", "prefect.yaml"}
    assert {path.name for path in KUBERNETES.glob("*.yaml")} == resources
    assert sum(
        len(documents(KUBERNETES / name)) for name in resources - {"kustomization.yaml", "rayjob.yaml", "prefect.yaml"}
    ) == len(applied())


@pytest.mark.parametrize("name", ["machines", "aws"])
def test_ray_s_cluster_launcher_takes_its_files(name):
    config = read(DEPLOY / "ray" / f"{name}.yaml")
    prepared = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    assert prepared["head_node_type"] in prepared["available_node_types"]
    assert sum(kind["max_workers"] for kind in prepared["available_node_types"].values()) == prepared["max_workers"]
    for part in ([], ["auth"], ["docker"]):
        for name in list(functools.reduce(dict.__getitem__, part, config)):
            wrong = copy.deepcopy(config)
            inside = functools.reduce(dict.__getitem__, part, wrong)
            inside[name + "X"] = inside[name]
            with pytest.raises(jsonschema.ValidationError, match=f"{name}X"):
                validate_config(prepare_config(wrong))
