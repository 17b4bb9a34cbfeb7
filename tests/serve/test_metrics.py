"""Figures of several processes on one page that Prometheus can read."""

import pickle

import pytest
from prometheus_client.parser import text_string_to_metric_families

from serve.metrics import NAMES, IngressMetrics, SamplerMetrics, page, snapshot

# the series that dashboards and the documentation name
SERIES = {
    "medphantom_queue_wait_seconds": {"kind"},
    "medphantom_forward_seconds": {"component"},
    "medphantom_forward_rows": {"component"},
    "medphantom_rejected_total": {"reason"},
    "medphantom_model_memory_bytes": {"model"},
    "medphantom_live_processes": set[str](),
    "medphantom_images_total": {"task"},
    "medphantom_job_items": {"state"},
    "medphantom_requests_total": {"route", "status"},
}
SUFFIXES = ("_bucket", "_count", "_sum")


def sampler(images: int) -> SamplerMetrics:
    """Figures of a sampler that has worked."""
    metrics = SamplerMetrics()
    for kind in ("live", "job"):
        metrics.queue_wait.labels(kind).observe(0.2)
    metrics.forward_seconds.labels("unet").observe(0.07)
    metrics.forward_rows.labels("unet").observe(8)
    metrics.model_memory.labels('odd "name"\n').set(4e8)
    metrics.live_processes.set(3)
    metrics.images.labels("text-to-cxr").inc(images)
    return metrics


def ingress() -> IngressMetrics:
    """Figures of an ingress that has answered."""
    metrics = IngressMetrics()
    metrics.requests.labels("/v1/jobs/{job_id}", "200").inc()
    metrics.rejected.labels("quota").inc(2)
    metrics.job_items.labels("queued").set(5)
    return metrics


@pytest.fixture
def text() -> str:
    """The page of two samplers and an ingress."""
    sources = {
        "sampler-0": snapshot(sampler(3).registry),
        "sampler-1": snapshot(sampler(4).registry),
        "ingress": snapshot(ingress().registry),
    }
    return page(sources).decode()


def values(text: str, name: str) -> dict[str, float]:
    """Value by replica of a series without suffix."""
    return {
        sample.labels["replica"]: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    }


def test_the_names_are_those_that_dashboards_use() -> None:
    assert frozenset(SERIES) == NAMES


def test_every_series_has_its_labels_and_a_replica(text: str) -> None:
    seen = set()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            name = sample.name
            for suffix in SUFFIXES:
                if family.type == "histogram":
                    name = name.removesuffix(suffix)
            seen.add(name)
            assert set(sample.labels) - {"le"} == SERIES[name] | {"replica"}
    assert seen == set(SERIES)


def test_each_series_comes_once_a_replica_and_each_help_once(text: str) -> None:
    samples = [line.rsplit(" ", 1)[0] for line in text.splitlines() if not line.startswith("#")]
    assert len(samples) == len(set(samples))
    for kind in ("# HELP", "# TYPE"):
        names = [line.split(" ")[2] for line in text.splitlines() if line.startswith(kind)]
        assert sorted(names) == sorted(SERIES)


def test_figures_of_two_processes_are_kept_apart(text: str) -> None:
    assert values(text, "medphantom_images_total") == {"sampler-0": 3, "sampler-1": 4}
    assert values(text, "medphantom_requests_total") == {"ingress": 1}
    assert values(text, "medphantom_rejected_total") == {"ingress": 2}


def test_lines_of_a_family_stand_together(text: str) -> None:
    """The format demands it: a family that comes twice is an error to Prometheus."""
    families = []
    for line in text.splitlines():
        if line.startswith("# TYPE"):
            families.append(line.split(" ")[2])
        elif not line.startswith("#"):
            assert line.startswith(families[-1])
    assert len(families) == len(set(families))


def test_histograms_stay_cumulative_in_each_process(text: str) -> None:
    for family in text_string_to_metric_families(text):
        if family.name == "medphantom_forward_rows":
            buckets = {
                replica: [
                    (float(sample.labels["le"]), sample.value)
                    for sample in family.samples
                    if sample.name.endswith("_bucket") and sample.labels["replica"] == replica
                ]
                for replica in ("sampler-0", "sampler-1")
            }
    for counts in buckets.values():
        assert counts == sorted(counts)
        assert dict(counts)[4.0] == 0
        assert dict(counts)[8.0] == dict(counts)[float("inf")] == 1


def test_a_snapshot_can_travel_and_does_not_change_later() -> None:
    metrics = sampler(1)
    sent = pickle.dumps(snapshot(metrics.registry))
    before = page({"a": pickle.loads(sent)})
    metrics.images.labels("text-to-cxr").inc(10)
    assert page({"a": pickle.loads(sent)}) == before
    assert page({"a": snapshot(metrics.registry)}) != before


def test_a_page_without_samplers_is_still_a_page() -> None:
    text = page({"ingress": snapshot(IngressMetrics().registry)}).decode()
    assert list(text_string_to_metric_families(text))
    assert page({}) == b""
