"""The files below deploy/ as objects, and the published schemas they must obey."""

import functools
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonpatch
import yaml
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from tests import ROOT

DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"

_KUBERNETES_SCHEMAS = "kubernetes-json-schema/v1.37.0-local-strict/_definitions.json"


def read(path: Path) -> Any:
    """The only document of a YAML or JSON file."""
    [document] = documents(path)
    return document


def documents(path: Path) -> list[Any]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def applied(folder: str = "kubernetes") -> dict[tuple[str, str], Any]:
    """Kind and name to object: all that `kubectl apply -k deploy/<folder>` makes, without the generated ConfigMaps."""
    kustomization = read(DEPLOY / folder / "kustomization.yaml")
    found: dict[tuple[str, str], Any] = {}
    for name in kustomization["resources"]:
        path = (DEPLOY / folder / name).resolve()
        found |= (
            applied(path.name)
            if path.is_dir()
            else {(object_["kind"], object_["metadata"]["name"]): object_ for object_ in documents(path)}
        )
    for patch in kustomization.get("patches", ()):
        key = (patch["target"]["kind"], patch["target"]["name"])
        found[key] = jsonpatch.apply_patch(found[key], read(DEPLOY / folder / patch["path"]))
    return found


def pods(object_: Any) -> list[Any]:
    """The pod specs anywhere inside an object."""
    if isinstance(object_, list):
        return [pod for item in object_ for pod in pods(item)]
    if not isinstance(object_, dict):
        return []
    return [object_] if "containers" in object_ else [pod for value in object_.values() for pod in pods(value)]


def problems(object_: Any) -> list[str]:
    """What the schema of the object's kind finds wrong, an unknown name included."""
    if not {"apiVersion", "kind"} <= object_.keys():
        return ["apiVersion or kind is missing"]
    return [error.message for error in _validator(object_["apiVersion"], object_["kind"]).iter_errors(object_)]


@functools.cache
def _validator(api_version: str, kind: str) -> Draft202012Validator:
    group, _, version = api_version.rpartition("/")
    if group == "ray.io":
        reference = f"https://ray.io/v1/kuberay.json#/$defs/{kind}"
    else:
        reference = (
            f"https://kubernetes.io/api/_definitions.json#/$defs/io.k8s.api.{group.split('.')[0] or 'core'}.{version}.{kind}"
        )
    return Draft202012Validator({"$ref": reference}, registry=_registry())


@functools.cache
def _registry() -> Registry:
    kubernetes = json.loads(files("kubernetes_validate").joinpath(_KUBERNETES_SCHEMAS).read_text())
    kuberay = json.loads((DEPLOY / "schemas" / "kuberay-v1.json").read_text())
    return Registry().with_resources((schema["$id"], Resource.from_contents(schema)) for schema in (kubernetes, kuberay))
