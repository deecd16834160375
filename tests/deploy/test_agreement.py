"""What the files below deploy/ say of each other: names, ports, mounts, versions and sizes agree."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import ray

from data_schemas.params import PipelineParams
from data_schemas.params_reading import load_params
from flows.config import load_config
from tests import ROOT
from tests.deploy.objects import DEPLOY, KUBERNETES, applied, pods, read

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PAGE = (DEPLOY / "README.md").read_text()
RAY_JOB = read(KUBERNETES / "rayjob.yaml")
WORK_POOL = read(KUBERNETES / "work-pool.json")
EVERYTHING = [*applied().values(), RAY_JOB, WORK_POOL["job_configuration"]["job_manifest"]]
PODS = [pod for object_ in EVERYTHING for pod in pods(object_)]
CONTAINERS = [container for pod in PODS for container in (*pod.get("initContainers", ()), *pod["containers"])]
CLUSTER = applied()["RayCluster", "ropeway"]
GENERATED = {
    made["name"]: [Path(file).name for file in made["files"]]
    for made in read(KUBERNETES / "kustomization.yaml")["configMapGenerator"]
}


def params_named(name: str) -> PipelineParams:
    return load_params(str(KUBERNETES / "params" / name))


def mentioned(key: str, node: Any = EVERYTHING) -> list[Any]:
    """Every value under `key`, at any depth."""
    if isinstance(node, list):
        return [value for item in node for value in mentioned(key, item)]
    if not isinstance(node, dict):
        return []
    return [value for name, inner in node.items() for value in ([inner] if name == key else []) + mentioned(key, inner)]


def environment() -> list[Any]:
    return [env for container in CONTAINERS for env in container.get("env", ())]


def test_two_images_of_this_version():
    images = {container["image"] for container in CONTAINERS} - {"{{ image }}"}
    images.add(WORK_POOL["variables"]["properties"]["image"]["default"])
    version = PROJECT["version"]
    assert images == {f"ropeway-cpu:{version}", f"ropeway-gpu:{version}"}
    for name in images:
        assert f"-t {name} " in PAGE
    for launcher in ("machines", "aws"):
        named = re.findall(r"(?:\S+/)?(ropeway-[cg]pu:\S+)", (DEPLOY / "ray" / f"{launcher}.yaml").read_text())
        assert set(named) <= images
        assert named


def test_one_version_of_ray():
    assert CLUSTER["spec"]["rayVersion"] == ray.__version__
    assert any(
        requirement.startswith("ray[") and requirement.endswith(f"=={ray.__version__}")
        for requirement in PROJECT["dependencies"]
    )


def test_the_ray_job_s_cluster_is_the_one_that_stays():
    assert RAY_JOB["spec"]["rayClusterSpec"] == CLUSTER["spec"]


def test_what_is_mounted_exists_and_stands_at_the_same_place_everywhere():
    claims = {name for kind, name in applied() if kind == "PersistentVolumeClaim"}
    assert set(mentioned("claimName")) == claims
    for pod in PODS:
        volumes = {volume["name"]: volume for volume in pod.get("volumes", ())}
        for container in (*pod.get("initContainers", ()), *pod["containers"]):
            for mount in container.get("volumeMounts", ()):
                claim = volumes[mount["name"]].get("persistentVolumeClaim", {}).get("claimName")
                assert (claim == "ropeway") == (mount["mountPath"] == "/ropeway")
                if map_ := volumes[mount["name"]].get("configMap"):
                    assert map_["name"] in GENERATED
    shared = [
        pod
        for pod in PODS
        if any(v.get("persistentVolumeClaim", {}).get("claimName") == "ropeway" for v in pod.get("volumes", ()))
    ]
    assert len(shared) == 3 + 3 + 1  # head and both pools, twice, and the flow's pod


@pytest.mark.parametrize("name", GENERATED["ropeway-params"])
def test_parameter_files_use_what_is_mounted(name):
    params = params_named(name)
    assert params.storage.startswith("/ropeway/")
    assert params.ray.address == "auto"
    assert params.ray.data_workers is not None
    for path in (params.model.base, *(source.uri for source in params.corpus.sources)):
        assert path in ("demo", "stdlib:") or path.startswith("/ropeway/")
    assert f"/etc/ropeway/{name}" in PAGE + RAY_JOB["spec"]["entrypoint"]


def test_the_first_run_is_the_demo():
    own = {"run_name", "storage", "ray"}
    demo = load_config("demo", ["training.precision=fp32"])  # what auto is where the device is not known before the run
    assert params_named("first-run.yaml").model_dump(exclude=own) == demo.model_dump(exclude=own)


def test_commands_name_files_that_the_head_has():
    [mount] = [
        m["mountPath"]
        for m in pods(CLUSTER["spec"]["headGroupSpec"])[0]["containers"][0]["volumeMounts"]
        if m["name"] == "params"
    ]
    text = PAGE + RAY_JOB["spec"]["entrypoint"]
    named = re.findall(r"--params (/\S+)", text)
    assert named
    assert {Path(path).parent for path in map(Path, named)} == {Path(mount)}
    assert {Path(path).name for path in named} <= set(GENERATED["ropeway-params"])
    for module in re.findall(r"python -m (\S+)", text):
        assert (ROOT / module.replace(".", "/") / "__main__.py").is_file()


def test_ports_and_addresses():
    head = pods(CLUSTER["spec"]["headGroupSpec"])[0]["containers"][0]
    ports = {port["name"]: port["containerPort"] for port in head["ports"]}
    assert (ports["gcs-server"], ports["dashboard"]) == (6379, 8265)
    address = f"http://{CLUSTER['metadata']['name']}-head-svc:{ports['dashboard']}"
    deployments = read(KUBERNETES / "prefect.yaml")["deployments"]
    assert {deployment["parameters"]["params"]["ray"]["address"] for deployment in deployments} == {address}
    assert address in PAGE
    assert "EXPOSE 6379 8265" in (DEPLOY / "Dockerfile").read_text()
    for launcher in ("machines", "aws"):
        config = read(DEPLOY / "ray" / f"{launcher}.yaml")
        assert "--port=6379" in config["head_start_ray_commands"][1]
        assert "--dashboard-port=8265" in config["head_start_ray_commands"][1]
        assert "$RAY_HEAD_IP:6379" in config["worker_start_ray_commands"][1]
    [service] = [object_ for (kind, _), object_ in applied().items() if kind == "Service"]
    assert service["spec"]["selector"] == applied()["Deployment", "prefect-server"]["spec"]["template"]["metadata"]["labels"]
    url = f"http://{service['metadata']['name']}:{service['spec']['ports'][0]['port']}/api"
    assert {env["value"] for env in environment() if env["name"] == "PREFECT_API_URL"} == {url}


def test_secrets_are_references_and_the_page_makes_each():
    secrets = {reference["name"] for reference in mentioned("secretKeyRef") + mentioned("secretRef")} | set(
        mentioned("secretName")
    )
    [redis] = mentioned("secretKeyRef", applied("gcs-redis")["RayCluster", "ropeway"]["spec"]["gcsFaultToleranceOptions"])
    assert secrets | {redis["name"]} == set(re.findall(r"create secret generic (\S+)", PAGE))
    assert not [object_ for object_ in EVERYTHING if object_["kind"] == "Secret"]
    for env in environment():
        names_a_secret = env["name"].startswith("PREFECT_INTEGRATIONS_KUBERNETES_WORKER_API_AUTH_STRING_SECRET_")
        assert not re.search("TOKEN|SECRET|PASSWORD|AUTH_STRING", env["name"]) or "value" not in env or names_a_secret


def test_the_prefect_server_asks_for_a_login_and_all_that_call_it_have_one():
    [server] = pods(applied()["Deployment", "prefect-server"])[0]["containers"]
    told = {env["name"]: env for env in server["env"]}
    login = {"secretKeyRef": {"name": "ropeway-prefect-login", "key": "auth_string"}}
    assert told["PREFECT_SERVER_API_AUTH_STRING"]["valueFrom"] == login
    assert told["PREFECT_UI_API_URL"]["value"] == "http://127.0.0.1:4200/api"
    assert "kubectl port-forward service/prefect-server 4200" in PAGE
    callers = [c for c in CONTAINERS if any(env["name"] == "PREFECT_API_URL" for env in c.get("env", ()))]
    assert len(callers) == 2
    for container in callers:
        env = {env["name"]: env for env in container["env"]}
        assert env["PREFECT_API_AUTH_STRING"]["valueFrom"] == login
    worker = {env["name"]: env.get("value") for env in callers[-1]["env"]}
    prefix = "PREFECT_INTEGRATIONS_KUBERNETES_WORKER_API_AUTH_STRING_SECRET"
    assert {"name": worker[f"{prefix}_NAME"], "key": worker[f"{prefix}_KEY"]} == login["secretKeyRef"], "flow runs' pods"


def test_only_the_pods_that_must_reach_the_servers_do():
    policies = {name: object_["spec"] for (kind, name), object_ in applied().items() if kind == "NetworkPolicy"}
    closed = policies.pop("closed-by-default")
    assert (closed["podSelector"], closed["policyTypes"], closed.get("ingress")) == ({}, ["Ingress"], None)
    server = applied()["Deployment", "prefect-server"]["spec"]["template"]["metadata"]["labels"]
    assert policies["prefect-server"]["podSelector"]["matchLabels"] == server
    worker = applied()["Deployment", "prefect-worker"]["spec"]["template"]["metadata"]["labels"]
    assert {"podSelector": {"matchLabels": worker}} in policies["prefect-server"]["ingress"][0]["from"]
    [submitter] = [
        sender["podSelector"]["matchLabels"]
        for sender in policies["ray-dashboard"]["ingress"][0]["from"]
        if "matchLabels" in sender.get("podSelector", {})
    ]
    assert RAY_JOB["spec"]["submitterPodTemplate"]["metadata"]["labels"] == submitter
    for policy in policies.values():
        assert policy["policyTypes"] == ["Ingress"]
        assert all(rule["from"] for rule in policy["ingress"]), "no rule admits everybody"
    assert [rule["ports"] for rule in policies["ray-dashboard"]["ingress"]] == [[{"protocol": "TCP", "port": 8265}]]


def test_every_container_says_how_much_disk_it_takes():
    for container in (*CONTAINERS, CLUSTER["spec"]["autoscalerOptions"]):
        assert container["resources"]["requests"]["ephemeral-storage"]
        assert container["resources"]["limits"]["ephemeral-storage"]


def test_gpu_pods_go_to_gpu_nodes_and_are_evicted_one_at_a_time():
    groups = {group["groupName"]: pods(group)[0] for group in CLUSTER["spec"]["workerGroupSpecs"]}
    assert groups["gpu"]["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
    assert "nodeSelector" not in groups["cpu"]
    budgets = {name: object_["spec"] for (kind, name), object_ in applied().items() if kind == "PodDisruptionBudget"}
    assert budgets["ropeway-gpu"] == {"maxUnavailable": 1, "selector": {"matchLabels": {"ray.io/group": "gpu"}}}
    assert budgets["ropeway-head"] == {"maxUnavailable": 0, "selector": {"matchLabels": {"ray.io/node-type": "head"}}}


def test_service_accounts_exist_and_only_the_worker_and_the_autoscaler_speak_to_kubernetes():
    accounts = {name for kind, name in applied() if kind == "ServiceAccount"}
    named = set(mentioned("serviceAccountName")) - {"{{ service_account_name }}"}
    assert named | {WORK_POOL["variables"]["properties"]["service_account_name"]["default"]} == accounts
    binding = applied()["RoleBinding", "prefect-worker"]
    assert [subject["name"] for subject in binding["subjects"]] == ["prefect-worker"]
    assert ("Role", binding["roleRef"]["name"]) in applied()
    head = pods(CLUSTER["spec"]["headGroupSpec"])[0]
    for pod in PODS:
        assert pod.get("automountServiceAccountToken") is False or pod == head or pod["serviceAccountName"] == "prefect-worker"


def test_every_pod_satisfies_the_restricted_pod_security_standard():
    uid = int(re.search(r"useradd --uid (\d+)", (DEPLOY / "Dockerfile").read_text())[1])
    for pod in PODS:
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["runAsUser"] == uid
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    sidecar = CLUSTER["spec"]["autoscalerOptions"]
    for container in (*CONTAINERS, sidecar):
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        assert container["resources"]["limits"]["memory"]


@pytest.mark.parametrize(
    ("folder", "name"), [("kubernetes", "first-run.yaml"), ("kubernetes", "long-context.yaml"), ("kind", "first-run.yaml")]
)
def test_the_workers_that_are_asked_for_fit_the_pods(folder, name):
    asked = params_named(name).ray
    groups = {group["groupName"]: group for group in applied(folder)["RayCluster", "ropeway"]["spec"]["workerGroupSpecs"]}
    data, training = capacity(groups["cpu"]), capacity(groups["gpu" if asked.use_gpu else "cpu"])
    assert asked.data_workers <= data["cpus"] * data["pods"]
    a_pod = training["cpus"] // asked.cpus_per_worker
    if asked.use_gpu:
        a_pod = min(a_pod, training["gpus"])
        assert a_pod == training["gpus"]  # no GPU stands idle for want of CPUs
    else:
        assert training["gpus"] == 0
    assert asked.num_workers <= a_pod * training["pods"]


def capacity(group: Any) -> dict[str, int]:
    """What Ray sees of a group: it counts CPUs and GPUs by the container's limits."""
    [container] = pods(group)[0]["containers"]
    limits = container["resources"]["limits"]
    assert container["resources"]["requests"] == limits  # a pod that may not be squeezed
    assert group["replicas"] == group["minReplicas"] == 0
    return {"cpus": int(limits["cpu"]), "gpus": int(limits.get("nvidia.com/gpu", 0)), "pods": group["maxReplicas"]}


def test_the_head_is_without_work_and_grows_the_rest():
    spec = CLUSTER["spec"]
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert spec["enableInTreeAutoscaling"] is True
    assert read(DEPLOY / "ray" / "aws.yaml")["available_node_types"]["head"]["resources"] == {"CPU": 0}


def test_a_gpu_pod_has_time_for_a_checkpoint_before_it_goes():
    pod = pods(CLUSTER["spec"]["workerGroupSpecs"][1])[0]
    [container] = pod["containers"]
    script = container["lifecycle"]["preStop"]["exec"]["command"][-1]
    notice = int(re.search(r"--deadline-remaining-seconds (\d+)", script)[1])
    waits = int(re.search(r"\{1\.\.(\d+)\}", script)[1])
    poll = next(int(env["value"]) for env in container["env"] if env["name"] == "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S")
    assert poll < notice <= waits < pod["terminationGracePeriodSeconds"]


def test_the_job_clears_up_after_itself_and_tries_again():
    spec = RAY_JOB["spec"]
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["ttlSecondsAfterFinished"] > 0
    assert spec["backoffLimit"] > 0


def test_the_page_names_only_files_that_exist():
    for path in re.findall(r"deploy/[\w./-]*\w", PAGE):
        assert (ROOT / path).exists(), path
    table = PAGE.split("| --- | --- |")[1].split("\n\n")[0]
    for path in re.findall(r"`([\w./-]+)`", "\n".join(row.split("|")[1] for row in table.strip().splitlines())):
        assert (DEPLOY / path).exists() or (KUBERNETES / path).exists(), path
