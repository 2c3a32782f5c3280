"""What /metrics tells Prometheus."""

from __future__ import annotations

from time import perf_counter

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fashion_retrieval.serve.engine import Engine


class Metrics:
    """Counters of one service, in a registry of its own."""

    def __init__(self, engine: Engine) -> None:
        self.registry = CollectorRegistry()
        name = "fashion_retrieval"
        self._requests = Counter(
            f"{name}_requests", "Requests answered.", ("method", "route", "status"), registry=self.registry
        )
        self._seconds = Histogram(
            f"{name}_request_seconds", "From a request's first byte to its answer.", ("route",), registry=self.registry
        )
        self._batches = Histogram(
            f"{name}_batch_size",
            "Photos, texts or calls that the model computed at once.",
            ("kind",),
            buckets=(1, 2, 4, 8, 16),
            registry=self.registry,
        )
        Gauge(f"{name}_queue", "Photos, texts and calls under way.", registry=self.registry).set_function(
            lambda: engine.under_way
        )
        engine.on_batch = lambda kind, size: self._batches.labels(kind).observe(size)

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """One answered request."""
        self._requests.labels(method, route, status).inc()
        self._seconds.labels(route).observe(seconds)


class Counted:
    """ASGI middleware: counts every answer by its route, not by its address, which clients choose."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self.app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on and note its status."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = perf_counter(), 500

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, noted)
        finally:
            route = getattr(scope.get("route"), "path", None) or "other"
            method = scope["method"] if scope["method"] in ("GET", "POST", "DELETE", "HEAD", "OPTIONS") else "other"
            self._metrics.count(method, route, status, perf_counter() - began)
