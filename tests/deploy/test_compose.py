"""The compose files, Prometheus and Grafana fit each other, the image and the exported metrics."""

import importlib
import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import make_url

from serve.metrics import NAMES

DEPLOY = Path(__file__).parents[2] / "deploy"
FILES = ("compose.yaml", "compose.gpu.yaml", "compose.grafana.yaml")


def load(name: str) -> dict[str, Any]:
    """A YAML file of `deploy`."""
    loaded: dict[str, Any] = yaml.safe_load((DEPLOY / name).read_text())
    return loaded


COMPOSE = load("compose.yaml")
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DASHBOARD = json.loads((DEPLOY / "grafana/dashboards/medphantom.json").read_text())
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


def mounts(service: str) -> dict[str, str]:
    """Source -> target of a service's volumes."""
    return dict(volume.split(":")[:2] for volume in SERVICES[service]["volumes"])


@pytest.mark.parametrize("file", FILES)
def test_a_port_is_open_to_this_machine_only(file: str) -> None:
    for service in load(file)["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def test_only_the_service_has_a_port_and_a_network_that_leads_out() -> None:
    assert [name for name, service in SERVICES.items() if "ports" in service] == ["service"]
    inner = {name for name, network in COMPOSE["networks"].items() if network}
    assert all(COMPOSE["networks"][name] == {"internal": True} for name in inner)
    for name, service in SERVICES.items():
        assert set(service["networks"]) <= inner or name == "service"


@pytest.mark.parametrize("kind", ["volumes", "secrets", "networks"])
def test_whatever_the_services_use_is_declared_and_the_other_way_round(kind: str) -> None:
    used = {
        use.split(":")[0]
        for service in SERVICES.values()
        for use in service.get(kind, [])
        if not use.startswith(".")
    }
    assert used == set(COMPOSE[kind])


@pytest.mark.parametrize("service", SERVICES)
def test_a_container_gets_no_more_rights_than_it_needs(service: str) -> None:
    settings = SERVICES[service]
    assert settings["read_only"] is True
    assert settings["cap_drop"] == ["ALL"]
    assert "cap_add" not in settings
    assert settings["security_opt"] == ["no-new-privileges:true"]
    assert settings.get("user") != "root"


def test_services_wait_for_what_can_say_that_it_is_healthy() -> None:
    for service in SERVICES.values():
        for name, wanted in service.get("depends_on", {}).items():
            assert wanted == {"condition": "service_healthy"}
            assert "healthcheck" in SERVICES[name] or "build" in SERVICES[name]
    assert "HEALTHCHECK" in (DEPLOY / SERVICES["service"]["build"]["dockerfile"][7:]).read_text()


def test_passwords_come_from_files_that_git_ignores() -> None:
    assert "/secrets/" in (DEPLOY / ".gitignore").read_text().splitlines()
    for secret in COMPOSE["secrets"].values():
        assert secret["file"].startswith("./secrets/")
        assert f"deploy/{secret['file'][2:]}" in (DEPLOY / "compose.yaml").read_text()
    for service in SERVICES.values():
        for name in service.get("environment", {}):
            assert not re.search("PASSWORD|SECRET|TOKEN", name) or name.endswith("_FILE")
        for path in re.findall(r"/run/secrets/(\w+)", json.dumps(service)):
            assert path in service["secrets"]


def test_the_store_is_the_database_beside_it_and_its_url_holds_no_password() -> None:
    url = make_url(SERVICES["service"]["environment"]["MEDPHANTOM_STORE"])
    database = SERVICES["postgres"]["environment"]
    assert url.drivername == "postgresql+psycopg"
    assert url.password is None
    assert (url.host, url.username, url.database) == (
        "postgres",
        database["POSTGRES_USER"],
        database["POSTGRES_DB"],
    )
    assert set(SERVICES["service"]["networks"]) & set(SERVICES["postgres"]["networks"])


def test_rays_object_store_fits_in_the_shared_memory() -> None:
    service = SERVICES["service"]
    assert service["shm_size"].endswith("m")
    most = int(service["environment"]["RAY_DEFAULT_OBJECT_STORE_MAX_MEMORY_BYTES"])
    assert most < int(service["shm_size"][:-1]) * 2**20
    constants = importlib.import_module("ray._private.ray_constants")
    assert hasattr(constants, "DEFAULT_OBJECT_STORE_MAX_MEMORY_BYTES")  # what the variable sets


@pytest.mark.parametrize("file", FILES[:2])
def test_the_service_runs_a_config_that_the_image_holds(file: str) -> None:
    program, verb, path = load(file)["services"]["service"]["command"]
    assert (program, verb) == ("serve", "run")
    (copy,) = [
        line
        for line in (DEPLOY / "Dockerfile").read_text().splitlines()
        if line.startswith("COPY deploy/")
    ]
    *sources, target = copy.split()[1:]
    assert path in {target + Path(source).name for source in sources}


def test_the_gpu_file_gives_the_sampler_the_gpus_that_its_config_asks_for() -> None:
    service = load("compose.gpu.yaml")["services"]["service"]
    (device,) = service["deploy"]["resources"]["reservations"]["devices"]
    (application,) = load(Path(service["command"][2]).name)["applications"]
    assert device["capabilities"] == ["gpu"]
    assert device["count"] == application["args"]["num_gpus"] * application["args"]["max_replicas"]


def test_what_is_mounted_from_the_repository_exists() -> None:
    for service in SERVICES:
        for source in mounts(service) if "volumes" in SERVICES[service] else ():
            assert not source.startswith(".") or (DEPLOY / source).exists()


def test_prometheus_scrapes_the_service_with_a_key_that_it_is_given() -> None:
    (job,) = load("prometheus/prometheus.yml")["scrape_configs"]
    assert job["metrics_path"] == "/metrics"
    folder, name = job["authorization"]["credentials_file"].rsplit("/", 1)
    assert folder == "/run/secrets"
    assert name in SERVICES["prometheus"]["secrets"]
    assert job["static_configs"] == [{"targets": ["service:8000"]}]
    assert set(SERVICES["service"]["networks"]) & set(SERVICES["prometheus"]["networks"])


def test_grafana_finds_prometheus_and_the_dashboard() -> None:
    (source,) = load("grafana/provisioning/datasources/prometheus.yml")["datasources"]
    (provider,) = load("grafana/provisioning/dashboards/medphantom.yml")["providers"]
    assert source["url"] == "http://prometheus:9090"
    assert provider["options"]["path"] == mounts("grafana")["./grafana/dashboards"]
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{provider['options']['path']}/medphantom.json"


def test_the_dashboard_asks_for_metrics_that_the_service_exports() -> None:
    for query in QUERIES:
        names = set(re.findall(r"\bmedphantom_\w+", query))
        assert names
        assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in names} <= NAMES, query


@pytest.mark.parametrize(
    "metric",
    [
        "requests_total",
        "rejected_total",
        "queue_wait_seconds",
        "forward_seconds",
        "forward_rows",
        "live_processes",
        "job_items",
        "model_memory_bytes",
        "images_total",
    ],
)
def test_the_dashboard_shows_the_metric(metric: str) -> None:
    assert any(f"medphantom_{metric}" in query for query in QUERIES)


def test_the_panels_have_places_of_their_own_and_the_chosen_data_source() -> None:
    (variable,) = DASHBOARD["templating"]["list"]
    chosen = {"type": "prometheus", "uid": f"${{{variable['name']}}}"}
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        assert panel["datasource"] == chosen
        assert all(target["datasource"] == chosen for target in panel["targets"])
    for one, other in itertools.combinations([panel["gridPos"] for panel in panels], 2):
        apart = abs(one["x"] - other["x"]) >= one["w"] or abs(one["y"] - other["y"]) >= one["h"]
        assert apart
