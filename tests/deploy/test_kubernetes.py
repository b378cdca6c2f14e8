"""The manifests for Kubernetes: their form, and that what they name exists in the server."""

import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import pytest
import yaml  # type: ignore[import-untyped]
from intaglio.cli.main import cli
from intaglio.serving.app import ROUTES
from intaglio.serving.cluster.config import ClusterConfig
from intaglio.serving.metrics.engines import FAMILIES

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "deploy" / "kubernetes"
KINDS = {
    "Deployment": "apps/v1",
    "Service": "v1",
    "HorizontalPodAutoscaler": "autoscaling/v2",
    "ScaledObject": "keda.sh/v1alpha1",
    "PodMonitor": "monitoring.coreos.com/v1",
    "InferenceService": "serving.kserve.io/v1beta1",
    "RayService": "ray.io/v1",
}
"""kind → apiVersion"""


def documents() -> list[dict[str, Any]]:
    return [found for path in sorted(MANIFESTS.glob("*.yaml")) for found in yaml.safe_load_all(path.read_text())]


def nested(value: Any, name: str) -> Iterator[Any]:
    """Yield the values of a key, however deep."""
    if isinstance(value, dict):
        yield from (item for key, item in value.items() if key == name)
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from nested(item, name)


def containers() -> list[dict[str, Any]]:
    return [one for document in documents() for found in nested(document, "containers") for one in found]


def ray_service() -> dict[str, Any]:
    return next(document for document in documents() if document["kind"] == "RayService")


def test_every_document_is_of_a_kind_that_is_known() -> None:
    assert {document["kind"]: document["apiVersion"] for document in documents()} == KINDS
    for document in documents():
        assert set(document) == {"apiVersion", "kind", "metadata", "spec"}
        assert document["metadata"]["name"] == "intaglio"


def test_the_arguments_are_those_of_the_command() -> None:
    command = cli.get_command(click.Context(cli), "serve")
    assert command is not None
    served = [container for container in containers() if container["image"] == "intaglio"]
    assert len(served) == 2
    for container in served:
        context = command.make_context("serve", list(container["args"]))
        (artifact,) = context.params["artifacts"]
        assert re.fullmatch(r"chat=/(models/chat|mnt/models)", artifact)
        drain = context.params["drain_timeout"]
        graces = list(nested(documents(), "terminationGracePeriodSeconds"))
        assert min(graces) > drain


def test_the_probes_and_scrapes_are_paths_of_the_server() -> None:
    paths = {route.path for route in ROUTES}
    probed = {probe["path"] for probe in nested(documents(), "httpGet")}
    assert probed == {"/health", "/ready"} <= paths
    annotated = [text for text in nested(documents(), "annotations") for text in [yaml.safe_dump(text)]]
    scraped = {path for text in annotated for path in re.findall(r"/path: (\S+)", text)}
    monitored = {endpoint["path"] for found in nested(documents(), "podMetricsEndpoints") for endpoint in found}
    assert scraped == monitored == {"/metrics"} <= paths


def test_ports_are_the_images() -> None:
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
    (exposed,) = re.findall(r"^EXPOSE (\d+)", dockerfile, re.MULTILINE)
    for container in containers():
        if container["image"] == "intaglio":
            (port,) = container["ports"]
            assert str(port["containerPort"]) == exposed
            for probe in nested(container, "httpGet"):
                assert probe["port"] in (port["name"], port["containerPort"])


def test_scaling_reads_metrics_of_the_server() -> None:
    (query,) = {metadata["query"] for metadata in nested(documents(), "metadata") if "query" in metadata}
    named = set(re.findall(r"vllm:\w+", query))
    hpa = {metric["name"] for metric in nested(documents(), "metric")}
    assert named == {name.replace("vllm_", "vllm:") for name in hpa} <= set(FAMILIES)


def test_every_volume_that_is_mounted_exists() -> None:
    specs = [spec for document in documents() for spec in [document, *nested(document, "spec")] if "containers" in spec]
    assert len(specs) >= 3
    for spec in specs:
        volumes = {volume["name"] for volume in spec.get("volumes", [])}
        for container in spec["containers"]:
            assert {mount["name"] for mount in container.get("volumeMounts", [])} <= volumes


def test_the_application_on_ray_is_as_build_takes_it() -> None:
    config = yaml.safe_load(ray_service()["spec"]["serveConfigV2"])
    (application,) = config["applications"]
    declared = ClusterConfig.model_validate(application["args"])
    cluster = ray_service()["spec"]["rayClusterConfig"]
    (workers,) = cluster["workerGroupSpecs"]
    (worker,) = workers["template"]["spec"]["containers"]
    assert declared.autoscaling is not None
    most = workers["maxReplicas"] * int(worker["resources"]["limits"]["cpu"])
    assert declared.autoscaling.max * declared.cpus <= most  # else replicas wait for machines that never come
    mounts = {mount["mountPath"] for mount in worker["volumeMounts"]}
    assert {Path(folder).parent.as_posix() for folder in declared.artifacts.values()} <= mounts
    assert Path(declared.load["weight_cache"]).parent.as_posix() in mounts
    image = (ROOT / "deploy" / "Dockerfile.ray").read_text()
    assert f"rayproject/ray:{cluster['rayVersion']}-" in image


@pytest.mark.slow
def test_ray_accepts_the_application() -> None:
    if find_spec("ray") is None:
        pytest.skip("Ray is not installed: pip install 'intaglio[cpu,ray]'")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ACCEPTED],
        input=ray_service()["spec"]["serveConfigV2"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout == "Application\n", done.stderr


ACCEPTED = """
import importlib, sys, yaml
from intaglio.serving.cluster.config import ClusterConfig
from ray.serve.schema import ServeDeploySchema
application = ServeDeploySchema.model_validate(yaml.safe_load(sys.stdin)).applications[0]
module, _, name = application.import_path.partition(":")
built = getattr(importlib.import_module(module), name)(ClusterConfig.model_validate(application.args))
print(type(built).__name__)
"""
"""A program that reads a configuration of Ray Serve as ``serve deploy`` does."""
