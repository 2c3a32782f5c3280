"""The service as an ASGI application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from importlib import resources

from fastapi import FastAPI, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.middleware.cors import CORSMiddleware

from fashion_retrieval.serve import problems, shelves, vision
from fashion_retrieval.serve.limits import Gate
from fashion_retrieval.serve.metrics import Counted, Metrics
from fashion_retrieval.serve.problems import RequestError
from fashion_retrieval.serve.responses import Health
from fashion_retrieval.serve.state import Service

_ABOUT = """What garments are in a photo, embeddings of photos and texts, and search by photo, text or both.

Photos are files in a form (multipart) or base64 in JSON; no address is fetched and no path is read.
Errors are problem documents (RFC 9457) with one line that tells the remedy."""


def create_app(service: Service, *, keys: Sequence[str] = (), origins: Collection[str] = ()) -> FastAPI:
    """The service over HTTP; at its end the engine finishes what is under way.

    Args:
        service: The engine, the galleries and the limits.
        keys: What clients must send one of; without any, only this computer's own names are answered to.
        origins: Sites whose pages may ask, "https://shop.example".
    """
    from fashion_retrieval import __version__

    metrics = Metrics(service.engine)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.engine.close)

    app = FastAPI(
        title="fashion-retrieval",
        version=__version__,
        description=_ABOUT,
        lifespan=lifespan,
        docs_url=None,  # FastAPI's own pages load scripts of other hosts
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
    )
    problems.install(app)

    @app.get("/healthz", tags=["service"])
    async def healthz() -> Health:
        """Whether the service lives."""
        return Health()

    @app.get("/readyz", tags=["service"], responses={503: {"model": problems.Problem}})
    async def readyz() -> Health:
        """Whether the service takes requests: its queue has a place."""
        service.check_free()
        return Health()

    @app.get("/metrics", tags=["service"], response_class=Response)
    async def prometheus() -> Response:
        """Counters for Prometheus."""
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url="openapi.json",
            title=app.title,
            swagger_js_url="swagger/swagger-ui-bundle.js",
            swagger_css_url="swagger/swagger-ui.css",
            swagger_favicon_url="swagger/favicon-32x32.png",
        )

    app.mount("/swagger", StaticFiles(directory=str(resources.files("fastapi_swagger") / "resources")))
    app.include_router(vision.routes(service))
    app.include_router(shelves.routes(service))
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"],
            expose_headers=["Retry-After"],
        )
    app.add_middleware(Gate, keys=keys, origins=origins, max_body=service.max_body)
    app.add_middleware(Counted, metrics=metrics)
    return app


__all__ = ["RequestError", "Service", "create_app"]
