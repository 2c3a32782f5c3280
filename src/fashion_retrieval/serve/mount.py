"""The page at `/` of a service that is up before Gradio is: importing it takes seconds."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from html import escape
from importlib.resources import files
from threading import Thread
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from starlette.responses import HTMLResponse
from starlette.routing import Match, Mount
from starlette.types import Message, Receive, Scope, Send

from fashion_retrieval._utils.optional import imported
from fashion_retrieval.errors import MissingExtraError
from fashion_retrieval.serve.engine import Engine

if TYPE_CHECKING:
    from fashion_retrieval.gallery.gallery import Gallery

_log = logging.getLogger(__name__)

_PATHS = re.compile(
    r"/|/(config|theme\.css|manifest\.json|favicon\.ico)|/(static|assets)/.*"
    r"|/gradio_api/(info|startup-events|app_id|cancel|reset|queue/join|queue/data|heartbeat/.*)"
)
"""What the page needs of Gradio. Not its ways to upload files, to read them by path or URL, or to another server."""

_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (
        b"content-security-policy",
        b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; object-src 'none'; base-uri 'self'",
    ),
]
"""The browser itself holds the page to this host."""

_FRAME = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Fashion Retrieval</title>
<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">{head}
<style>body{{font:16px/1.5 system-ui,sans-serif;margin:20vh auto;max-width:36rem;padding:0 1rem}}</style>
</head><body><p>{line}</p><p>{link}</p></body></html>"""


def mount_page(
    app: FastAPI, engine: Engine, galleries: Mapping[str, Gallery], *, max_body: int = 20_000_000
) -> Callable[[], None]:
    """Give an app the page at `/`, beside its own routes, which come first.

    Gradio is imported once the app has started, by a thread; until then `/` says so and loads itself again. Where
    Gradio is not installed, `/` says how to install it.

    Args:
        app: Its routes must be there already.
        engine: As in `build_page`.
        galleries: As in `build_page`.
        max_body: The largest request in bytes.

    Returns:
        What to call when the service is told to end: each open page holds a connection, for which servers wait.
    """
    documented = any(getattr(route, "path", None) == "/docs" for route in app.routes)
    page = _Page(engine, galleries, max_body=max_body, link='<a href="docs">API</a>' if documented else "")
    app.router.routes.append(_PageRoute("", page, max_body_size=max_body))
    inner = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(started: FastAPI) -> AsyncIterator[Any]:
        async with inner(started) as state:
            task = asyncio.create_task(page.run())
            try:
                yield state
            finally:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    app.router.lifespan_context = lifespan
    return page.stop


class _PageRoute(Mount):
    """Takes the paths of the page alone, so that others are answered as if it were not there."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, child = super().matches(scope)
        page = scope["type"] == "http" and _PATHS.fullmatch(scope["path"].removeprefix(scope.get("root_path", "")))
        return (match, child) if page else (Match.NONE, {})


class _Page:
    """An ASGI app: Gradio's, once it is there, and a line before."""

    def __init__(self, engine: Engine, galleries: Mapping[str, Gallery], **given: Any) -> None:  # noqa: ANN401
        self._engine, self._galleries, self._given = engine, galleries, given
        self._gradio: FastAPI | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._line, self._again = "The page is starting …", True

    async def run(self) -> None:
        """Build the page in a thread and keep Gradio's queue running, until this is canceled."""
        self._loop = asyncio.get_running_loop()
        try:
            gradio = await _in_thread(self._build)
            async with gradio.router.lifespan_context(gradio):
                self._gradio = gradio
                try:
                    await asyncio.Event().wait()
                finally:
                    self._gradio = None
        except MissingExtraError as error:
            self._line, self._again = str(error), False
        except Exception:
            _log.exception("the page can't be built")
            self._line, self._again = "The page can't be built; the log of the service says why.", False

    def stop(self) -> None:
        """End the streams of open pages; from any thread or a signal's handler."""
        gradio: Any = self._gradio
        if gradio and self._loop:
            self._loop.call_soon_threadsafe(gradio.router.routes[-1].app.stop_event.set)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if self._gradio is None:
            head = '<meta http-equiv="refresh" content="1">' if self._again else ""
            await HTMLResponse(_FRAME.format(head=head, line=escape(self._line), link=self._given["link"]))(
                scope, receive, send
            )
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_HEADERS]
            await send(message)

        await self._gradio(scope, receive, with_headers)

    async def _build(self) -> FastAPI:
        """Gradio's app; asynchronous because Gradio opens event loops, and leaves them open, where none is running."""
        gradio = imported("gradio", "page")
        from fashion_retrieval.serve.page import build_page

        blocks = build_page(self._engine, self._galleries, **self._given)
        theme = gradio.themes.Default(
            primary_hue="blue",
            neutral_hue="slate",
            radius_size="md",
            font=("system-ui", "sans-serif"),
            font_mono=("ui-monospace", "monospace"),
        ).set(  # legible: Gradio's own have a contrast under 4.5
            body_text_color_subdued="*neutral_500",
            body_text_color_subdued_dark="*neutral_400",
            button_primary_background_fill="*primary_600",
            button_primary_background_fill_hover="*primary_700",
        )
        folder = files("fashion_retrieval").joinpath("assets", "page")
        app: FastAPI = gradio.mount_gradio_app(
            FastAPI(),
            blocks,
            path="/",
            footer_links=[],
            run_history=False,
            show_error=False,
            ssr_mode=False,
            mcp_server=False,
            pwa=False,
            theme=theme,
            css=folder.joinpath("page.css").read_text(encoding="utf-8"),
            favicon_path=str(folder.joinpath("icon.png")),
        )
        return app


async def _in_thread(build: Any) -> Any:  # noqa: ANN401  # whatever the coroutine gives
    """What a coroutine function returns, from a thread that the end of the process does not wait for."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def settle(result: Any, error: BaseException | None) -> None:  # noqa: ANN401  # as above
        if not future.done():
            future.set_exception(error) if error else future.set_result(result)

    def work() -> None:
        result, error = None, None
        try:
            result = asyncio.run(build())
        except Exception as caught:
            error = caught
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, result, error)

    Thread(target=work, name="page", daemon=True).start()
    return await future
