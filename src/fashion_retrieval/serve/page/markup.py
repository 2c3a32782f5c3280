"""The HTML of the page's own parts: the photo and its garments, the turns, the results."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np
from PIL import Image

from fashion_retrieval.gallery.comparison import Comparison
from fashion_retrieval.gallery.items import recognized_fields
from fashion_retrieval.gallery.refinement import Turn
from fashion_retrieval.results import Garment, Match, Recognition
from fashion_retrieval.results.board import Change
from fashion_retrieval.results.card import GARMENT_COLORS
from fashion_retrieval.results.masks import polygons
from fashion_retrieval.serve.page.pictures import address, address_of
from fashion_retrieval.serve.page.visit import Photo, Visit
from fashion_retrieval.taxonomy import Taxonomy

_OUTLINE, _CHANGES = 600, 4

SUGGESTIONS = ("a striped shirt", "a red jacket", "black shoes")
"""What a visitor may press before anything was asked."""

_HANGER = """<svg viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width="1.7" stroke-linecap="round"
stroke-linejoin="round" aria-hidden="true"><path d="M9.8 6.4a2.2 2.2 0 1 1 3.3 1.9c-.7.4-1.1 1-1.1 1.8v.6L3.6 16.5
c-1.2.8-.6 2.5.7 2.5h15.4c1.3 0 1.9-1.7.7-2.5L12 10.7"/></svg>"""

_DROP = """<div class="fr-drop"><label class="fr-target"><input type="file" accept="image/*,.heic,.heif">
{icon}<b>{title}</b><span aria-live="polite">{hint}</span></label>
<button type="button" class="fr-quiet" data-camera hidden>Use the camera</button>
<video class="fr-camera" playsinline muted hidden aria-label="What the camera sees"></video></div>"""


def photo_part(photo: Photo | None, *, searched: bool) -> str:
    """The place to drop a photo; once there is one, the photo with its outlines and what its garments are."""
    if photo is None:
        return _DROP.format(icon=_HANGER, title="Drop a photo here", hint="or paste it, or press to choose one")
    found = photo.recognition
    garments = list(enumerate(found.garments))
    title = _sentence([garment.title for garment in found.garments])
    picture = f'<img src="{address(photo.picture)}" alt="{escape(f"Your photo: {title}", quote=True)}">'
    shapes = "".join(_outline(index, garment, searched) for index, garment in garments)
    outlines = f'<svg viewBox="0 0 {found.width} {found.height}" aria-hidden="true">{shapes}</svg>'
    tags = "".join(_tag(index, garment, found) for index, garment in garments)
    rows = "".join(_garment(index, garment, searched) for index, garment in garments)
    hint = "Pick a garment to search with it." if searched and garments else ""
    another = _DROP.format(icon="", title="Another photo", hint="drop, paste or choose")
    return f"""<div class="fr-photo"><div class="fr-side"><div class="fr-frame">{picture}{outlines}{tags}</div>
{another}</div><div class="fr-found"><h2>{escape(title)}</h2><p class="fr-muted">{hint}</p>
<ol class="fr-garments">{rows}</ol></div></div>"""


def trail_part(visit: Visit) -> str:
    """The turns, each with what was new in it; a press goes back to it."""
    turns, items = visit.turns, []
    for number, turn in enumerate(turns, start=1):
        before = turns[number - 2] if number > 1 else None
        new = [wish for wish in turn.wishes if before is None or wish not in before.wishes]
        picture, name = "", ""
        if turn.reference is not None and (before is None or turn.reference is not before.reference):
            source, name = _reference(visit, turn)
            picture = f'<img src="{source}" alt="{escape(name, quote=True)}">' if source else ""
        named = [f"<span>{escape(name)}</span>"] if name else []
        words = " ".join((*named, *(f"<q>{escape(wish)}</q>" for wish in new)))
        current = ' aria-current="step"' if number == len(turns) else ""
        items.append(f'<li><button type="button" data-select="{number}"{current}>{picture}{words}</button></li>')
    return f'<nav aria-label="Turns of this search"><ol class="fr-trail">{"".join(items)}</ol></nav>' if items else ""


def results_part(visit: Visit | None) -> str:
    """What the last turn found, as a grid."""
    if visit is None or not visit.turns or visit.search is None:
        hint = "Pick a garment of your photo, or write what you look for."
        tries = "".join(f'<li><button type="button" data-select="{wish}">{wish}</button></li>' for wish in SUGGESTIONS)
        shown = f'<nav aria-label="Searches to try"><ol class="fr-tries">{tries}</ol></nav>'
        return f'<div class="fr-empty" data-picked=""><p>{hint}</p>{shown}</div>'
    picked = "" if visit.picked is None else visit.picked
    turn, gallery = visit.turns[-1], visit.search.gallery
    taxonomy = Taxonomy.load(gallery.taxonomy or visit.engine.model.config.taxonomy)
    compared = Comparison(taxonomy, _compared(visit, turn), turn.text)
    recognized = recognized_fields(gallery.taxonomy) if gallery.taxonomy else ()
    own = [field for field in gallery.info.fields if field not in recognized]
    cells = "".join(_result(match, compared, own, visit.engine.max_pixels) for match in turn.matches)
    name = _reference(visit, turn)[1]
    asked = " · ".join(filter(None, (f"like {name}" if name else "", *turn.wishes)))
    why = "Nothing found. Take a filter away, or go back a turn." if gallery.info.count else "This gallery is empty."
    nothing = "" if cells else f"<p>{why}</p>"
    count = f"{len(turn.matches)} of {gallery.info.count} photos{', filtered' if turn.where else ''}"
    read = "" if turn.understood == (turn.text or "") else f"understood: {turn.understood} · "
    heading = f'<h2 tabindex="-1">{escape(_capital(asked))}</h2><p class="fr-muted">{escape(read)}{count}</p>'
    return f"""<div data-picked="{picked}"><div class="fr-heading" role="status">{heading}</div>{nothing}
<ol class="fr-results">{cells}</ol></div>"""


def line(message: str) -> str:
    """One line about what went wrong, or nothing."""
    return f'<p class="fr-line" role="alert">{escape(message)}</p>' if message else ""


def _sentence(titles: Sequence[str]) -> str:
    words = list(dict.fromkeys(titles))
    return _capital(" and ".join(filter(None, (", ".join(words[:-1]), *words[-1:]))) or "no garment found")


def _reference(visit: Visit, turn: Turn) -> tuple[str | None, str]:
    """The small picture of a turn's reference, and what it is called."""
    if isinstance(turn.reference, Match):
        title = _title(turn.reference)
        return address_of(turn.reference, visit.engine.max_pixels), title or turn.reference.id
    if isinstance(turn.reference, bytes) and visit.photo and visit.picked is not None:
        return address(turn.reference), f"your {visit.photo.recognition.garments[visit.picked].title}"
    return None, ""


def _compared(visit: Visit, turn: Turn) -> Match | Recognition | None:
    """What results are compared with."""
    if isinstance(turn.reference, Match):
        return turn.reference
    if turn.reference is None or visit.photo is None or visit.picked is None:
        return None
    found = visit.photo.recognition
    return Recognition(found.width, found.height, (found.garments[visit.picked],), found.model_id)


def _title(match: Match) -> str:
    """Color and category in words; empty for a photo that was not recognized."""
    words = (match.fields.get(name) for name in ("color", "category"))
    return " ".join(str(word).replace("_", " ") for word in words if word)


def _result(match: Match, compared: Comparison, own: Sequence[str], max_pixels: int | None) -> str:
    """A result: photo, title, score, id, the gallery's own fields, and what differs from the reference."""
    title, source = _title(match), address_of(match, max_pixels)
    told = ", ".join(filter(None, (title, *match.words))) or match.id
    picture = f'<img src="{source}" alt="{escape(told, quote=True)}">' if source else "<span>photo not found</span>"
    changes = compared.changes(match) or ()
    rows = "".join(_change(change) for change in changes[:_CHANGES])
    facts = " · ".join(f"{field.replace('_', ' ')} {match.fields[field]}" for field in own if field in match.fields)
    name = escape(match.id, quote=True)
    head = escape(_capital(title) or match.id)
    return f"""<li class="fr-result"><div class="fr-cell">{picture}</div>
<h3>{head}<span class="fr-score" title="cosine similarity to the query">{match.score:.2f}</span></h3>
<p class="fr-id" title="{name}">{name}</p>{_muted(escape(facts)) if facts else ""}<ul class="fr-changes">{rows}</ul>
<button type="button" data-select="{name}" aria-label="More like {name}">More like this</button></li>"""


def _change(change: Change) -> str:
    was = f' <span class="fr-muted">(was {escape(change.was)})</span>' if change.was else ""
    return f"<li{' class=fr-asked' if change.asked else ''}>{escape(change.label)}{was}</li>"


def _outline(index: int, garment: Garment, searched: bool) -> str:
    """The outline of a garment without its holes, in pixels of the photo."""
    from scipy.ndimage import binary_fill_holes  # takes half a second, as in `polygons`

    height, width = garment.mask.shape
    factor = max(1.0, max(width, height) / _OUTLINE)
    size = (max(1, round(width / factor)), max(1, round(height / factor)))
    mask = binary_fill_holes(np.asarray(Image.fromarray(garment.mask).resize(size)))
    rings = (ring * (width / size[0], height / size[1]) for ring in polygons(mask))
    path = "".join("M" + " ".join(f"{x:.0f},{y:.0f}" for x, y in ring) + "Z" for ring in rings)
    pick = f' data-select="{index}"' if searched else ""
    return f'<path d="{path}" style="--fr:{_color(index)}" data-garment="{index}"{pick}></path>'


def _tag(index: int, garment: Garment, found: Recognition) -> str:
    """The number of a garment, at the top of its outline."""
    rows = np.flatnonzero(garment.mask.any(1))
    row = rows[len(rows) // 12] if len(rows) else int(garment.box[1])
    columns = np.flatnonzero(garment.mask[row])
    column = columns[len(columns) // 2] if len(columns) else (garment.box[0] + garment.box[2]) / 2
    place = f"left:{100 * column / found.width:.1f}%;top:{100 * row / found.height:.1f}%"
    return f'<span class="fr-chip fr-tag" style="--fr:{_color(index)};{place}" aria-hidden="true">{index + 1}</span>'


def _garment(index: int, garment: Garment, searched: bool) -> str:
    """A garment's category, colors and attributes with their probabilities, and what can't be seen of it."""
    chip = f'<span class="fr-chip">{index + 1}</span>'
    name = f"<b>{escape(garment.category.name.replace('_', ' '))}</b><i>{garment.category.probability:.0%}</i>"
    head = f'<div class="fr-head">{chip}{name}</div>'
    if searched:
        press = f'data-select="{index}" data-garment="{index}" aria-pressed="false"'
        head = f'<button type="button" class="fr-head" {press}>{chip}{name}<em>Find similar</em></button>'
    others = ", ".join(f"{score.name.replace('_', ' ')} {score.probability:.0%}" for score in garment.categories[1:])
    colors = "".join(
        f'<li><span style="background:{color.hex}"></span>{escape(color.name)} <i>{color.share:.0%}</i></li>'
        for color in garment.colors
    )
    attributes = garment.attributes.values()
    rows = "".join(
        f"<div><dt>{_words(a.group)}</dt><dd>{_words(a.value)}</dd><dd><i>{a.probability:.0%}</i></dd></div>"
        for a in attributes
        if a.value is not None
    )
    hidden = ", ".join(_words(attribute.group) for attribute in attributes if attribute.status == "not_visible")
    return f"""<li style="--fr:{_color(index)}">{head}{_muted("or " + escape(others)) if others else ""}
<ul class="fr-colors" aria-label="Colors">{colors}</ul><dl>{rows}</dl>
{_muted(f"not visible: {hidden}") if hidden else ""}</li>"""


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]


def _muted(words: str) -> str:
    return f'<p class="fr-muted">{words}</p>'


def _words(name: str) -> str:
    return escape(name.replace("_", " "))


def _color(index: int) -> str:
    return GARMENT_COLORS[index % len(GARMENT_COLORS)]
