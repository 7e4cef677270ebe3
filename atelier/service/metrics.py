"""What Prometheus reads at /metrics."""

from __future__ import annotations

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """One application's metrics, in a registry of its own, so that applications in one process do not mix."""

    def __init__(self):
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        common = {"registry": self.registry, "namespace": "atelier"}
        self.requests = Counter("requests", "Requests answered.", ("method", "route", "status"), **common)
        self.request_seconds = Histogram(
            "request_seconds", "Time from a request to the end of its answer.", ("route",), buckets=SECONDS, **common
        )
        self.pictures = Counter("pictures", "Pictures that the models worked on.", ("kind",), **common)
        self.batch_pictures = Histogram(
            "batch_pictures", "Pictures in a batch.", ("kind",), buckets=(1, 2, 4, 8, 16, 32, 64), **common
        )
        self.batch_seconds = Histogram(
            "batch_seconds", "Time of a batch in the models.", ("kind",), buckets=SECONDS, **common
        )
        self.waiting = Gauge("waiting_pictures", "Pictures waiting for the models.", **common)
        self.ready = Gauge("ready", "1 when the models are warm, else 0.", **common)
        self.artworks = Gauge("artworks", "Artworks in the store.", **common)

    def watch_batch(self, kind: str, pictures: dict[str, int], seconds: float) -> None:
        """Note a batch of the models, and how many pictures of which kind were in it."""
        for each, count in pictures.items():
            self.pictures.labels(each).inc(count)
        self.batch_pictures.labels(kind).observe(sum(pictures.values()))
        self.batch_seconds.labels(kind).observe(seconds)


class MeasureRequests:
    """ASGI middleware that counts and times requests by their route."""

    def __init__(self, app: ASGIApp, metrics: Metrics):
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        began, status = time.perf_counter(), 499  # nginx's number for a client that left

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, noting)
        finally:
            # The route's pattern, not the path: strangers must not be able to fill the registry with labels.
            route = getattr(scope.get("route"), "path", None) or "other"
            method = scope["method"] if scope["method"] in ("GET", "HEAD", "POST") else "other"
            self.metrics.requests.labels(method, route, status).inc()
            self.metrics.request_seconds.labels(route).observe(time.perf_counter() - began)
