"""/metrics: what Prometheus asks for, of the queue, of the jobs that ended and of the requests that were answered."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from fastapi import APIRouter
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from engine.errors import NotAvailable
from engine.jobs import Job, JobQueue
from sgdiff_app.server.errors import gone
from sgdiff_app.server.service import service_of

if TYPE_CHECKING:
    from prometheus_client import Gauge

router = APIRouter()

PREFIXES = {"sgdiff": "sgdiff_", "sglang": "sglang:diffusion_"}
SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 60, 120, 300, 600, 1800, 3600)
SIZES = (1, 2, 4, 8, 16)


class Metrics:
    """Counters of one server, in a registry of their own. Labels hold words of this program alone."""

    def __init__(self, namespace: str) -> None:
        try:
            import prometheus_client as prometheus
        except ImportError as error:
            message = "enable_metrics: needs prometheus_client; pip install 'sgdiff-app[metrics]'"
            raise NotAvailable(message, param="enable_metrics") from error
        self.prefix = PREFIXES[namespace]
        prometheus.disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = prometheus.CollectorRegistry()
        self.library = prometheus

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> prometheus.Histogram:
            return prometheus.Histogram(self.prefix + name, text, labels, registry=self.registry, buckets=buckets)

        def counter(name: str, text: str, *labels: str) -> prometheus.Counter:
            return prometheus.Counter(self.prefix + name, text, labels, registry=self.registry)

        self.jobs = counter("requests", "Jobs that ended, by how", "status")
        self.http = counter("http_requests", "Requests that were answered", "route", "method", "status")
        self.latency = histogram("request_latency_seconds", "From taking a job in to its end", SECONDS)
        self.queue_time = histogram("queue_time_seconds", "From taking a job in to its first step", SECONDS)
        self.stages = histogram("stage_seconds", "Time of a stage of one job", SECONDS, "stage")
        self.batches = histogram("generation_batch_size", "Runs that share one forward", SIZES)
        self.memory = self._gauge("peak_memory_bytes", "Most memory that a job took")
        self.peak = 0.0

    def _gauge(self, name: str, text: str, value: Callable[[], float] | None = None) -> Gauge:
        gauge = self.library.Gauge(self.prefix + name, text, registry=self.registry)
        if value is not None:
            gauge.set_function(value)
        return gauge

    def watch(self, queue: JobQueue) -> None:
        """Look at a queue whenever somebody asks, and hear of every job that ends."""
        self._gauge("num_queue_reqs", "Jobs that wait", lambda: len(queue.waiting))
        self._gauge("num_running_reqs", "Jobs that run", lambda: len(queue.running))
        self._gauge("lora_loaded_adapters", "Adapters in memory", lambda: queue.supervisor.adapters)
        self._gauge("lora_active_adapters", "Adapters that requests are drawn with", lambda: active(queue))
        queue.observers.append(self.ended)

    def ended(self, job: Job) -> None:
        """Count a job that has ended."""
        self.jobs.labels(job.status).inc()
        if job.started_at is None or job.completed_at is None:
            return
        self.queue_time.observe(max(0.0, job.started_at - job.created_at))
        if job.status != "done":
            return
        self.latency.observe(max(0.0, job.completed_at - job.created_at))
        for stage, milliseconds in job.stages.items():
            self.stages.labels(stage).observe(milliseconds / 1000)
        for _ in job.artifacts:
            self.batches.observe(1)
        self.peak = max(self.peak, job.peak_memory_mb * 1e6)
        self.memory.set(self.peak)

    def answered(self, route: str, method: str, status: int) -> None:
        """Count a request; `route` is the template of its path."""
        self.http.labels(route, method, str(status)).inc()

    def text(self, accept: str) -> tuple[bytes, str]:
        """Return all metrics, and the media type of the format that `accept` asks for."""
        encode, media_type = self.library.exposition.choose_encoder(accept)
        return encode(self.registry), media_type


def active(queue: JobQueue) -> int:
    """Return how many adapters requests are drawn with."""
    return len({ref.name or ref.path for ref in queue.loras})


@router.get("/metrics")
async def metrics(http: HttpRequest) -> Response:
    """Tell the metrics. Raises ApiError where they are not wanted."""
    found = service_of(http).metrics
    if found is None:
        raise gone("not_found", "there is no route GET /metrics; --enable-metrics adds it")
    body, media_type = found.text(http.headers.get("accept", ""))
    return Response(body, headers={"content-type": media_type})
