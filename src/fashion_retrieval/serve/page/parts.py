"""Parts of the page that are HTML of our own, with the script and the style that they share."""

from __future__ import annotations

import re
from base64 import b64decode
from importlib.resources import files
from typing import Any

import gradio as gr

from fashion_retrieval.errors import InputError

_DATA_URL = re.compile(r"data:[^,]*;base64,")


def asset(name: str) -> str:
    """A text file of the page."""
    return files("fashion_retrieval").joinpath("assets", "page", name).read_text(encoding="utf-8")


def html_part(value: str = "", **given: Any) -> gr.HTML:  # noqa: ANN401  # Gradio's own arguments
    """A part whose buttons send what they stand for, by the event `select`, and whose photos come by `upload`."""
    return gr.HTML(value, js_on_load=asset("page.js"), apply_default_css=False, **given)


def sent(event: gr.EventData, name: str) -> str:
    """What a part sent; an `InputError` if it is missing."""
    data = event._data
    if not isinstance(data, dict) or not isinstance(value := data.get(name), str):
        raise InputError(f"expected a text {name!r} from the page, got none; load the page again")
    return value


def sent_number(event: gr.EventData) -> int:
    """The number that a pressed button stands for."""
    value = sent(event, "value")
    if not value.isdecimal() or len(value) > 9:
        raise InputError(f"expected a number from the page, got {value!r:.40}; load the page again")
    return int(value)


def sent_photo(event: gr.EventData) -> tuple[bytes, str]:
    """The file and the name of a photo that was dropped, pasted, chosen or taken."""
    content, name = sent(event, "content"), sent(event, "name")
    start = _DATA_URL.match(content)
    try:
        return b64decode(content[start.end() if start else 0 :], validate=True), name[-100:] or "photo"
    except ValueError as error:
        raise InputError("expected a photo in base64 from the page; load the page again") from error
