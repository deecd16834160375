"""The Prefect work pool as the Kubernetes worker itself reads it, and the deployments that use it."""

import asyncio
import copy
import importlib
import json
from typing import Any

import pytest
from prefect.cli.deploy._models import PrefectYamlModel
from prefect.client.schemas.objects import FlowRun
from prefect.flows import Flow
from prefect.utilities.schema_tools import is_valid_schema, validate
from prefect.utilities.templating import find_placeholders
from prefect_kubernetes.worker import KubernetesWorkerJobConfiguration, KubernetesWorkerVariables

from data_schemas.params import PipelineParams
from data_schemas.params_reading import load_params, validate_params
from ray_jobs.submit.submission import is_submitted
from tests.deploy.objects import KUBERNETES, applied, pods, problems, read

TEMPLATE = read(KUBERNETES / "work-pool.json")
VARIABLES = TEMPLATE["variables"]
DEPLOYMENTS = read(KUBERNETES / "prefect.yaml")["deployments"]


def job_for(template: dict[str, Any], **values: Any) -> dict[str, Any]:
    """The Job that the worker would ask Kubernetes for, without two fields that it insists on and Kubernetes ignores there."""
    unused_client: Any = object()  # the template names no blocks to look up
    configuration = asyncio.run(
        KubernetesWorkerJobConfiguration.from_template_and_values(copy.deepcopy(template), values, client=unused_client)
    )
    configuration.prepare_for_flow_run(FlowRun(flow_id="6f2c7a3e-0a55-4a53-9f3e-2f6d6a3c1b10", name="brave-rope"))
    manifest = configuration.job_manifest
    for misplaced in ("parallelism", "completions"):
        del manifest["spec"]["template"]["spec"][misplaced]
    return manifest


def test_the_worker_makes_a_valid_job_with_the_secrets_by_reference():
    job = job_for(TEMPLATE, env={"OMP_NUM_THREADS": "2"}, memory_request="4Gi")
    assert problems(job) == []
    [pod] = pods(job)
    [container] = pod["containers"]
    assert container["args"] == ["prefect", "flow-run", "execute"]
    assert container["resources"]["requests"] == {"cpu": "1", "memory": "4Gi", "ephemeral-storage": "10Gi"}
    env = {entry["name"]: entry for entry in container["env"]}
    assert env["OMP_NUM_THREADS"]["value"] == "2"
    assert env["RAY_AUTH_TOKEN"] == {
        "name": "RAY_AUTH_TOKEN",
        "valueFrom": {"secretKeyRef": {"name": "ropeway-ray-token", "key": "auth_token"}},
    }
    assert env["PREFECT__FLOW_RUN_ID"]["value"]
    assert job["spec"]["backoffLimit"] == 0
    assert job["metadata"]["namespace"] == "ropeway"


@pytest.mark.parametrize(
    "path",
    [
        "spec/backoffLimit",
        "spec/template/spec/volumes",
        "spec/template/spec/containers/0/envFrom",
        "spec/template/spec/securityContext",
    ],
)
def test_a_misspelt_name_in_the_job_is_found(path):
    template = copy.deepcopy(TEMPLATE)
    *parents, last = path.split("/")
    node: Any = template["job_configuration"]["job_manifest"]
    for step in parents:
        node = node[int(step)] if isinstance(node, list) else node[step]
    node[last + "X"] = node.pop(last)
    assert problems(job_for(template))


def test_variables_are_the_worker_s_own_and_each_is_used():
    assert is_valid_schema(VARIABLES) is None
    assert VARIABLES["properties"].keys() <= KubernetesWorkerVariables.model_fields.keys()
    used = {placeholder.name for placeholder in find_placeholders(json.dumps(TEMPLATE["job_configuration"]))}
    assert used == VARIABLES["properties"].keys()
    assert TEMPLATE["job_configuration"].keys() - {"job_manifest"} <= KubernetesWorkerJobConfiguration.model_fields.keys()
    defaults = {name: field["default"] for name, field in VARIABLES["properties"].items() if "default" in field}
    assert validate(defaults, VARIABLES) == []
    KubernetesWorkerVariables(**defaults)


@pytest.mark.parametrize(
    "wrong", [{"backoff_limit": -1}, {"image_pull_policy": "Sometimes"}, {"memory_request": 4}, {"env": ["A=b"]}]
)
def test_prefect_refuses_wrong_job_variables(wrong):
    [error] = validate(wrong, VARIABLES)
    assert [*wrong] == [error.path[0]]


def test_the_worker_s_pod_makes_and_serves_the_pool_that_the_deployments_name():
    [worker] = pods(applied()["Deployment", "prefect-worker"])
    create, serve = worker["initContainers"][0]["args"], worker["containers"][0]["args"]
    [pool] = {deployment["work_pool"]["name"] for deployment in DEPLOYMENTS}
    assert create[:4] == ["prefect", "work-pool", "create", pool]
    assert serve[serve.index("--pool") + 1] == pool


def test_each_flow_is_deployed_with_parameters_that_it_takes():
    PrefectYamlModel.model_validate(read(KUBERNETES / "prefect.yaml"))
    entrypoints = []
    for deployment in DEPLOYMENTS:
        module, _, name = deployment["entrypoint"].rpartition(".")
        flow = getattr(importlib.import_module(module), name)
        assert isinstance(flow, Flow)
        entrypoints.append(deployment["entrypoint"])
        params = validate_params(deployment["parameters"]["params"], origin="prefect.yaml")
        assert is_submitted(params.ray)
        assert _on_the_cluster(params) == load_params(str(KUBERNETES / "params" / "first-run.yaml"))
        assert validate(deployment["work_pool"]["job_variables"], VARIABLES) == []
    on_a_laptop = read(KUBERNETES.parents[1] / "prefect.yaml")["deployments"]
    assert entrypoints == [deployment["entrypoint"] for deployment in on_a_laptop]


def _on_the_cluster(params: PipelineParams) -> PipelineParams:
    return params.model_copy(update={"ray": params.ray.model_copy(update={"address": "auto"})})
