"""The page: what is in a photo, and a search that starts from it, in a browser."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import gradio as gr

from fashion_retrieval.errors import FashionRetrievalError
from fashion_retrieval.gallery.gallery import Gallery
from fashion_retrieval.serve.engine import BusyError, Engine
from fashion_retrieval.serve.page import markup
from fashion_retrieval.serve.page.parts import asset, html_part, sent, sent_number, sent_photo
from fashion_retrieval.serve.page.search import SearchPart, Values
from fashion_retrieval.serve.page.visit import Visit

Action = Callable[[Visit, Values, gr.EventData], None]

_VISITS, _HOUR = 100, 3_600
"""How many visitors are remembered, those who were here last, and for how many seconds."""

_log = logging.getLogger(__name__)


def build_page(
    engine: Engine, galleries: Mapping[str, Gallery], *, max_body: int = 20_000_000, link: str = ""
) -> gr.Blocks:
    """The page; `mount_page` mounts it.

    Args:
        engine: Computes. Photos come to it as they are, and are kept nowhere.
        galleries: What can be searched, by name; without one, photos are recognized and that is all.
        max_body: The largest request in bytes; the browser refuses photos that would make a larger one.
        link: HTML of a link to the API's own page, or nothing.
    """
    searched = bool(galleries)
    with gr.Blocks(title="Fashion Retrieval", analytics_enabled=False, fill_width=True) as page:
        state = gr.State(None, time_to_live=_HOUR)
        gr.HTML(asset("header.html").format(link=link), apply_default_css=False)
        with gr.Row(elem_id="fr-columns", elem_classes="fr-searched" if searched else ""):
            with gr.Column(scale=4, min_width=320):
                line = gr.HTML(apply_default_css=False)
                photo = html_part(markup.photo_part(None, searched=searched), most=max_body * 3 // 4 - 10_000)
            if searched:
                with gr.Column(scale=8, min_width=320):
                    search = SearchPart(galleries)
    inputs = {state, *(search.inputs if searched else ())}
    outputs = [state, line, photo, *(search.outputs if searched else ())]

    def act(values: Values, action: Callable[[Visit], None], where: gr.HTML) -> dict[Any, Any]:
        """Do one action of a visitor; what the page shows then, or one line about what went wrong."""
        visit = values[state] or Visit(engine, galleries, next(iter(galleries), ""))
        before = visit.photo
        try:
            if searched:
                search.read(values, visit)
            action(visit)
            shown = {state: visit, line: "", **(search.show(values, visit) if searched else {})}
        except BusyError:
            return {where: markup.line("busy, try again in a moment")}
        except FashionRetrievalError as error:
            return {where: markup.line(str(error))}
        except Exception:
            _log.exception("the page failed")
            return {where: markup.line("something went wrong; the log of the service says what")}
        if visit.photo is not before:
            shown[photo] = markup.photo_part(visit.photo, searched=searched)
        return shown

    def on(triggers: Any, action: Action, where: gr.HTML, **given: Any) -> None:  # noqa: ANN401  # of gr.on
        def handler(values: Values, event: gr.EventData) -> dict[Any, Any]:
            return act(values, lambda visit: action(visit, values, event), where)

        settings = {"concurrency_limit": None, "api_visibility": "private", "show_progress": "minimal"}
        gr.on(triggers, handler, inputs, outputs, **(settings | given))

    with page:
        on(photo.upload, lambda visit, _, event: visit.look(*sent_photo(event)), line)
        if searched:
            on(photo.select, lambda visit, _, event: visit.pick(sent_number(event)), search.line)
            on(search.trail.select, lambda visit, _, event: visit.back(sent_number(event)), search.line)
            on(search.results.select, lambda visit, _, event: visit.press(sent(event, "value")), search.line)
            words = [search.wish.submit, search.go.click]
            on(words, lambda visit, values, _: visit.wish(values[search.wish] or ""), search.line)
            on(search.undo.click, lambda visit, *_: visit.back(len(visit.turns) - 1), search.line)
            on(search.restart.click, lambda visit, *_: visit.back(0), search.line)
            on(search.gallery.input, lambda visit, values, _: visit.choose(values[search.gallery]), search.line)
            changes = [control.input for control in search.controls]
            on(changes, lambda visit, *_: visit.again(), search.line, trigger_mode="always_last")
    page.preprocess_data = _without_files(page.preprocess_data)
    page.queue(default_concurrency_limit=None, max_size=engine.queue, api_open=False)
    page.state_session_capacity = _VISITS
    return page


def _without_files(preprocess: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Gradio fetches what a request calls a file, by its path or its URL; no part of this page takes one."""

    async def checked(block_fn: Any, inputs: list[Any], *given: Any, **named: Any) -> Any:  # noqa: ANN401
        if "gradio.FileData" in json.dumps(inputs):
            raise gr.Error("this page takes no file by its path or URL", print_exception=False)
        return await preprocess(block_fn, inputs, *given, **named)

    return checked
