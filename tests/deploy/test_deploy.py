"""The Serve configs and the Kubernetes manifests fit the code, the lock and each other."""

import importlib
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from jobs.cli import app
from serve.settings import AppArgs

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
MANIFESTS = ("rayservice.yaml", "rayjob.yaml")
SERVE_CONFIGS = ("serve.yaml", "serve.gpu.yaml", "rayservice.yaml")
YAML_FILES = sorted(str(path.relative_to(DEPLOY)) for path in DEPLOY.rglob("*.y*ml"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
RAY_VERSION = next(
    package["version"]
    for package in tomllib.loads((ROOT / "uv.lock").read_text())["package"]
    if package["name"] == "ray"
)
IMAGE = f"medphantom:{PROJECT['project']['version']}-ray{RAY_VERSION}"
HARDWARE = {"min_replicas", "max_replicas", "num_cpus", "num_gpus"}  # what differs by machine
OPERATOR = {"namespaceSelector", "podSelector"}
# its own models use pydantic's old ways
importing_ray_serve = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(autouse=True)
def _data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arguments that name no store make a data folder."""
    for name in ("MEDPHANTOM_STORE", "MEDPHANTOM_RESULTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MEDPHANTOM_DATA", str(tmp_path))


def documents(name: str) -> list[dict[str, Any]]:
    """The documents of a YAML file in `deploy`."""
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


def of_kind(name: str, kind: str) -> dict[str, Any]:
    """The only document of a kind in a manifest."""
    (found,) = [document for document in documents(name) if document["kind"] == kind]
    return found


def serve_config(name: str) -> dict[str, Any]:
    """The Serve config in a file: the file itself, or what its RayService holds."""
    (config,) = (
        yaml.safe_load_all(of_kind(name, "RayService")["spec"]["serveConfigV2"])
        if name in MANIFESTS
        else documents(name)
    )
    return config


def cluster(name: str) -> dict[str, Any]:
    """The Ray cluster of a manifest."""
    spec = documents(name)[0]["spec"]
    return spec.get("rayClusterConfig") or spec["rayClusterSpec"]


def templates(name: str) -> list[dict[str, Any]]:
    """Pod templates of the head and the workers of a manifest."""
    ray = cluster(name)
    return [group["template"] for group in (ray["headGroupSpec"], *ray["workerGroupSpecs"])]


def containers(name: str) -> list[dict[str, Any]]:
    """All Ray containers of a manifest."""
    return [c for template in templates(name) for c in template["spec"]["containers"]]


def values(node: Any, key: str) -> Iterator[Any]:
    """What stands under a key, however deep."""
    if isinstance(node, dict):
        if key in node:
            yield node[key]
        node = list(node.values())
    if isinstance(node, list):
        for child in node:
            yield from values(child, key)


def gpus(container: dict[str, Any]) -> int:
    """GPUs that a container is given."""
    return int(container["resources"]["limits"].get("nvidia.com/gpu", 0))


@pytest.mark.parametrize("name", YAML_FILES)
def test_every_yaml_file_parses_and_pins_its_images(name: str) -> None:
    for document in documents(name):
        for image in values(document, "image"):
            assert re.fullmatch(r"[\w./-]+:v?\d[\w.-]*", image), image
            assert not image.startswith("medphantom") or image == IMAGE


@importing_ray_serve
@pytest.mark.parametrize("name", SERVE_CONFIGS)
def test_ray_serve_accepts_the_config_and_knows_every_field(name: str) -> None:
    schema = importlib.import_module("ray.serve.schema")
    config = serve_config(name)
    deployed = schema.ServeDeploySchema.model_validate(config)
    assert deployed.logging_config.encoding == "JSON"
    # fields it does not know are dropped in silence
    assert set(config) <= set(schema.ServeDeploySchema.model_fields)
    assert set(config["http_options"]) <= set(schema.HTTPOptionsSchema.model_fields)
    for application in config["applications"]:
        assert set(application) <= set(schema.ServeApplicationSchema.model_fields)


@importing_ray_serve
@pytest.mark.parametrize("name", SERVE_CONFIGS)
def test_the_application_is_one_the_code_builds(name: str) -> None:
    config = serve_config(name)
    (application,) = config["applications"]
    module, function = application["import_path"].split(":")
    assert callable(getattr(importlib.import_module(module), function))
    args = AppArgs.model_validate(application["args"])
    assert args.require_keys, "the port is bound on every interface"
    assert not {"store", "results"} & set(application["args"]), "where they are may be a secret"


def test_the_serve_configs_differ_in_nothing_but_what_a_sampler_is_given() -> None:
    configs = [serve_config(name) for name in SERVE_CONFIGS]
    for config in configs:
        args = config["applications"][0]["args"]
        config["applications"][0]["args"] = {k: v for k, v in args.items() if k not in HARDWARE}
    assert all(config == configs[0] for config in configs)


def test_the_gpu_workers_hold_as_many_samplers_as_the_application_may_ask_for() -> None:
    args = AppArgs.model_validate(serve_config("rayservice.yaml")["applications"][0]["args"])
    ray = cluster("rayservice.yaml")
    (group,) = ray["workerGroupSpecs"]
    (worker,) = group["template"]["spec"]["containers"]
    assert ray["enableInTreeAutoscaling"] is True
    assert args.num_gpus > 0
    samplers = int(gpus(worker) / args.num_gpus)
    assert args.min_replicas <= samplers * group["minReplicas"]
    assert args.max_replicas <= samplers * group["maxReplicas"]
    assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    # whatever is not a sampler has to fit beside them
    assert samplers * args.cpus + 2 <= int(worker["resources"]["limits"]["cpu"])


@pytest.mark.parametrize("name", MANIFESTS)
def test_the_cluster_runs_the_locked_ray_and_keeps_the_head_free_of_work(name: str) -> None:
    ray = cluster(name)
    assert ray["rayVersion"] == RAY_VERSION
    head = ray["headGroupSpec"]
    assert head["rayStartParams"]["num-cpus"] == "0"
    assert head["serviceType"] == "ClusterIP"
    assert not any(gpus(c) for c in head["template"]["spec"]["containers"])
    for container in containers(name):
        assert {"livenessProbe", "readinessProbe"} <= set(container)
        assert container["resources"]["requests"] == container["resources"]["limits"]


@pytest.mark.parametrize("name", MANIFESTS)
def test_every_node_demands_the_token_that_the_operator_has(name: str) -> None:
    options = cluster(name)["authOptions"]
    assert options["mode"] == "token"
    for container in containers(name):
        env = {entry["name"]: entry for entry in container["env"]}
        assert env["RAY_AUTH_MODE"]["value"] == "token"
        secret = env["RAY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"]
        assert secret == {"name": options["secretName"], "key": "auth_token"}


@pytest.mark.parametrize("name", MANIFESTS)
def test_no_container_may_become_more_than_it_is(name: str) -> None:
    autoscaler = cluster(name).get("autoscalerOptions")
    for container in [*containers(name), *([autoscaler] if autoscaler else [])]:
        context = container["securityContext"]
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["readOnlyRootFilesystem"] is True
        assert context["runAsNonRoot"] is True
        assert context["allowPrivilegeEscalation"] is False
        assert "/tmp" in {mount["mountPath"] for mount in container["volumeMounts"]}
    for template in templates(name):
        user = template["spec"]["securityContext"]["runAsUser"]
        assert f"\nUSER {user}:{user}\n" in (DEPLOY / "Dockerfile").read_text()


@pytest.mark.parametrize("name", MANIFESTS)
def test_only_the_service_port_is_open_to_other_namespaces(name: str) -> None:
    policy = of_kind(name, "NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress"]
    for template in templates(name):
        assert (
            policy["podSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
        )
    for rule in policy["ingress"]:
        (source,) = rule["from"]
        if set(source) == {"namespaceSelector"}:
            assert source["namespaceSelector"]["matchLabels"]
            assert [port["port"] for port in rule["ports"]] == [8000]
        elif set(source) != OPERATOR:
            assert source == {"podSelector": policy["podSelector"]}


@pytest.mark.parametrize("name", MANIFESTS)
def test_whatever_a_manifest_refers_to_is_in_it_or_its_head_says_how_to_make_it(name: str) -> None:
    manifest = documents(name)
    head = (DEPLOY / name).read_text().split("apiVersion", 1)[0]
    assert not any(document["kind"] in ("Secret", "ConfigMap") for document in manifest)
    for secret in values(manifest, "secretKeyRef"):
        assert f"kubectl create secret generic {secret['name']}" in head
        assert f"--from-literal={secret['key']}=" in head
    for config_map in values(manifest, "configMap"):
        assert f"kubectl create configmap {config_map['name']}" in head
    claims = {d["metadata"]["name"] for d in manifest if d["kind"] == "PersistentVolumeClaim"}
    assert {claim["claimName"] for claim in values(manifest, "persistentVolumeClaim")} == claims
    for template in templates(name):
        volumes = {volume["name"] for volume in template["spec"]["volumes"]}
        mounted = {m["name"] for mounts in values(template, "volumeMounts") for m in mounts}
        assert mounted == volumes


def test_the_batch_job_runs_a_command_we_have_on_files_that_are_mounted() -> None:
    job = documents("rayjob.yaml")[0]["spec"]
    program, group, name, *words = shlex.split(job["entrypoint"])
    command: Any = typer.main.get_command(app)
    parameters = command.commands[group].commands[name].params
    assert program == "medphantom"
    known = {option for parameter in parameters for option in parameter.opts}
    assert {word for word in words if word.startswith("-")} <= known
    (worker,) = templates("rayjob.yaml")[1]["spec"]["containers"]
    mounts = {mount["mountPath"] for mount in worker["volumeMounts"]}
    assert {"/" + word.split("/")[1] for word in words if word.startswith("/")} <= mounts
    # the command leaves the GPU, and a CPU, to the worker that it starts
    assert "entrypointNumGpus" not in job
    assert gpus(worker) == 1
    assert 0 < job["entrypointNumCpus"] < int(worker["resources"]["limits"]["cpu"])
    assert cluster("rayjob.yaml")["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert job["shutdownAfterJobFinishes"] is True


@pytest.mark.parametrize("name", SERVE_CONFIGS)
def test_nothing_is_killed_while_a_replica_may_still_finish(name: str) -> None:
    drain = AppArgs.model_validate(serve_config(name)["applications"][0]["args"]).drain_s
    compose = documents("compose.yaml")[0]["services"]["service"]
    worker = templates("rayservice.yaml")[1]["spec"]
    assert int(compose["stop_grace_period"].removesuffix("s")) > drain
    assert worker["terminationGracePeriodSeconds"] > drain
