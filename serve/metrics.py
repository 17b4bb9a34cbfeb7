"""What the service counts, in each process, and all processes' figures as one Prometheus page."""

from collections.abc import Iterable, Iterator

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric
from prometheus_client.exposition import generate_latest

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128)
CONTENT_TYPE = prometheus_client.CONTENT_TYPE_LATEST

prometheus_client.disable_created_metrics()


class SamplerMetrics:
    """Of one sampler."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.queue_wait = Histogram(
            "medphantom_queue_wait_seconds",
            "From an item's arrival at a sampler to the end of its first forward",
            ["kind"],
            registry=registry,
            buckets=SECONDS,
        )
        self.forward_seconds = Histogram(
            "medphantom_forward_seconds",
            "A forward of a network",
            ["component"],
            registry=registry,
            buckets=SECONDS,
        )
        self.forward_rows = Histogram(
            "medphantom_forward_rows",
            "Rows of a forward, padding included",
            ["component"],
            registry=registry,
            buckets=ROWS,
        )
        self.model_memory = Gauge(
            "medphantom_model_memory_bytes", "Weights in memory", ["model"], registry=registry
        )
        self.live_processes = Gauge(
            "medphantom_live_processes", "Items under way", registry=registry
        )
        self.images = Counter("medphantom_images", "Items made", ["task"], registry=registry)


class IngressMetrics:
    """Of one ingress."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "medphantom_requests", "HTTP requests", ["route", "status"], registry=registry
        )
        self.rejected = Counter(
            "medphantom_rejected", "Requests turned away", ["reason"], registry=registry
        )
        self.job_items = Gauge(
            "medphantom_job_items", "Items of jobs in the store", ["state"], registry=registry
        )


NAMES = frozenset(
    name + ("_total" if metric.type == "counter" else "")
    for metrics in (SamplerMetrics(), IngressMetrics())
    for metric in metrics.registry.collect()
    for name in [metric.name]
)
"""Of the series, as Prometheus shows them (histograms add _bucket, _sum and _count)."""


def snapshot(registry: CollectorRegistry) -> list[Metric]:
    """The figures of a process, to be sent to another."""
    return list(registry.collect())


def page(sources: dict[str, list[Metric]]) -> bytes:
    """Figures of processes by their name, which becomes the label `replica`, as text."""

    class Merged:
        def collect(self) -> Iterator[Metric]:
            yield from _merge(sources.items())

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Merged())
    return generate_latest(registry)


def _merge(sources: Iterable[tuple[str, list[Metric]]]) -> Iterable[Metric]:
    merged: dict[str, Metric] = {}
    for replica, metrics in sources:
        for metric in metrics:
            family = merged.setdefault(
                metric.name, Metric(metric.name, metric.documentation, metric.type)
            )
            for sample in metric.samples:
                labels = {**sample.labels, "replica": replica}
                family.samples.append(sample._replace(labels=labels))
    return merged.values()
