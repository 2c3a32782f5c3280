"""A retrieval board as HTML: text that can be selected, and photos inside it; nothing is fetched, nothing runs."""

from __future__ import annotations

from base64 import b64encode
from html import escape
from io import BytesIO

from PIL import Image

from fashion_retrieval._utils.files import asset
from fashion_retrieval.results.board import NOT_FOUND, NOTHING, Board, Change, Tile, frame_height
from fashion_retrieval.results.retrieval import Explanation

_SMALL, _QUERY = (360, 480), (400, 600)
"""Pixels of a result's photo and of the reference's, at most."""
_QUALITIES = (82, 70, 55, 40, 25)
_BYTES = 24_000
"""Of a photo's JPEG file, if a quality has so few: ten results stay below 400 KB."""

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<style>html {{ background: #fff; }} @media (prefers-color-scheme: dark) {{ html {{ background: #16181d; }} }}
body {{ margin: 0; }}</style></head>
<body>{board}</body></html>
"""


def page_of(board: Board) -> str:
    """A file of its own."""
    title = escape(" ".join(board.heading.split()) or "Search results")
    return _PAGE.format(title=title, board=part_of(board))


def part_of(board: Board) -> str:
    """One element, for a notebook or another page."""
    photos = [board.picture(tile, _SMALL) for tile in board.tiles]
    shape = f"--shape: 1 / {frame_height(photos, 1):.3f}"
    rows = zip(board.tiles, photos, strict=True)
    tiles = "\n".join(_tile(number, tile, photo) for number, (tile, photo) in enumerate(rows, start=1))
    found = f'<ol style="{shape}">{tiles}</ol>' if tiles else _p(NOTHING)
    return f'<div class="fr-board"><style>{asset("board.css")}</style>\n{_header(board)}{found}</div>'


def _header(board: Board) -> str:
    photo = ""
    if board.has_reference:
        small = board.photo and board.photo.convert("RGB")
        if small:
            small.thumbnail(_QUERY, Image.Resampling.LANCZOS, reducing_gap=3.0)
        shape = f"--shape: 1 / {frame_height([small], 1):.3f}"
        photo = f'<figure style="{shape}">{_photo(small, board.name or "reference")}</figure>'
    words = " ".join(map(_shaded, board.shades)) or escape(board.heading)
    heading = f'<h1 dir="auto">{words}</h1>' if words else ""
    legend = "".join(map(_change, board.legend))
    parts = (
        heading,
        _p(board.subtitle),
        _p(board.name, "fr-note"),
        _mixed(board.explanation),
        legend and f"<ul>{legend}</ul>",
        _p(board.caption, "fr-note"),
    )
    told = "".join(parts)
    return f"<header>{photo}<div>{told}</div></header>\n" if photo or told else ""


def _shaded(shade: tuple[str, float | None]) -> str:
    word, moved = shade
    if moved is None:
        return f'<span class="fr-out">{escape(word)}</span>'
    return f'<mark style="--moved: {100 * moved:.0f}%">{escape(word)}</mark>'


def _mixed(explanation: Explanation | None) -> str:
    """How much of photo and of text is in the query, where it is of both."""
    if explanation is None or explanation.gates is None:
        return ""
    photo, text = explanation.mix
    bar = f'<i style="--photo: {100 * explanation.photo:.1f}%"></i>'
    return f'<p class="fr-mix"><span>{photo}</span>{bar}<span>{text}</span></p>'


def _tile(number: int, tile: Tile, photo: Image.Image | None) -> str:
    match, (changes, note) = tile.match, tile.shown
    words = ", ".join(filter(None, (tile.title, *match.words)))
    told = _p(tile.title) + _p(", ".join(match.words), "fr-note") if tile.changes is None else ""
    listed = "".join(map(_change, changes))
    views = _p(f"{1 + len(match.views)} photos", "fr-note") if match.views else ""
    name = escape(match.id)
    return f"""<li><figure>{_photo(photo, words or match.id)}<b>{number}</b></figure>
<h2 dir="auto" title="{name}">{name}</h2><data value="{match.score!r}">{match.score:.2f}</data>
{views}{told}{listed and f"<ul>{listed}</ul>"}{_p(note, "fr-note")}</li>"""


def _photo(photo: Image.Image | None, words: str) -> str:
    if photo is None:
        return NOT_FOUND
    for quality in _QUALITIES:
        buffer = BytesIO()
        photo.save(buffer, "JPEG", quality=quality, optimize=True)
        if buffer.tell() <= _BYTES:
            break
    return f'<img src="data:image/jpeg;base64,{b64encode(buffer.getvalue()).decode()}" alt="{escape(words)}">'


def _change(change: Change) -> str:
    was = f" <span>(was <bdi>{escape(change.was)}</bdi>)</span>" if change.was else ""
    return f'<li dir="auto"{" class=fr-asked" * change.asked}>{escape(change.label)}{was}</li>'


def _p(words: str | None, kind: str = "") -> str:
    return f'<p dir="auto"{kind and f" class={kind}"}>{escape(words)}</p>' if words else ""
