"""The part that searches: words, how much they count, filters for each gallery, turns and results."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr

from fashion_retrieval.gallery.gallery import Gallery
from fashion_retrieval.inference.colors import PALETTE
from fashion_retrieval.serve.page import markup
from fashion_retrieval.serve.page.parts import html_part
from fashion_retrieval.serve.page.visit import Visit
from fashion_retrieval.taxonomy import Taxonomy

Values = Mapping[gr.components.Component, Any]
_WORDS = {"yes": "true", "no": "false"}


class SearchPart:
    """The components of the search, made inside a page: `read` brings their values to a visit, `show` shows it."""

    def __init__(self, galleries: Mapping[str, Gallery]) -> None:
        names = list(galleries)
        self.gallery = gr.Dropdown(names, value=names[0], label="Gallery", visible=len(names) > 1, elem_id="fr-gallery")
        with gr.Row(elem_id="fr-ask"):
            hint = "a red dress, or: with long sleeves"
            self.wish = gr.Textbox(label="What do you look for?", placeholder=hint, scale=5, min_width=220, max_lines=1)
            self.weight = gr.Slider(0, 1, 0.5, step=0.05, label="Text weight", scale=3, min_width=180)
            self.go = gr.Button("Search", variant="primary", scale=0, min_width=110)
        self.drawer = gr.Accordion("Filters", open=False, visible=bool(galleries[names[0]].info.fields))
        with self.drawer:
            self.filters = {name: build_filters(galleries[name], visible=name == names[0]) for name in names}
        self.line = gr.HTML(elem_classes="fr-lines", apply_default_css=False)
        with gr.Row(elem_id="fr-turns", visible=False) as self.turns:
            self.trail = html_part(min_width=200, scale=1)
            self.undo = gr.Button("Back one turn", size="sm", scale=0, min_width=120)
            self.restart = gr.Button("Start over", size="sm", scale=0, min_width=100)
        self.results = html_part(markup.results_part(None))
        self.controls = [self.weight, *(part for found in self.filters.values() for part, _ in found.conditions)]
        self.inputs = {self.gallery, self.wish, *self.controls}
        self.outputs = [self.gallery, self.wish, self.drawer, self.line, self.trail, self.turns, self.results]
        self.outputs += [found.group for found in self.filters.values()]

    def read(self, values: Values, visit: Visit) -> None:
        """Take over the weight and the filter."""
        visit.text_weight = values[self.weight]
        visit.where = self.filters[values[self.gallery]].where(values)

    def show(self, values: Values, visit: Visit) -> dict[Any, Any]:
        """What the components show now; a wish that holds leaves its field."""
        wishes = visit.turns[-1].wishes if visit.turns else ()
        done = " ".join((values[self.wish] or "").split()) in wishes
        groups = {found.group: gr.Column(visible=name == visit.gallery) for name, found in self.filters.items()}
        return groups | {
            self.drawer: gr.Accordion(visible=bool(self.filters[visit.gallery].conditions)),
            self.line: "",
            self.wish: "" if done else gr.skip(),
            self.trail: markup.trail_part(visit),
            self.turns: gr.Row(visible=bool(visit.turns)),
            self.results: markup.results_part(visit),
        }


@dataclass(frozen=True, slots=True)
class Filters:
    """The components for one gallery, in their own group; `where` reads their values."""

    group: gr.Column
    conditions: tuple[tuple[gr.components.Component, Callable[[Any], str | None]], ...]

    def where(self, values: Values) -> str | None:
        """The condition of the values, as `Gallery.search` takes it; None where nothing is filtered."""
        made = (condition(values[component]) for component, condition in self.conditions)
        return " and ".join(filter(None, made)) or None


def build_filters(gallery: Gallery, *, visible: bool) -> Filters:
    """Make the components, inside a Gradio page: choices for what recognition gives, and the gallery's own fields."""
    choices = _choices(gallery.taxonomy)
    with gr.Column(visible=visible) as group, gr.Row(elem_classes="fr-filters"):
        fields = gallery.info.fields.items()
        conditions = [pair for name, kind in fields for pair in _components(name, kind, choices.get(name))]
    return Filters(group, tuple(conditions))


def _choices(taxonomy: Taxonomy | None) -> dict[str, list[str]]:
    if taxonomy is None:
        return {}
    groups = {group.name: [value.name for value in group.values] for group in taxonomy.attributes}
    return {"category": [value.name for value in taxonomy.category.values], "color": list(PALETTE)} | groups


def _components(
    field: str, kind: str, choices: list[str] | None
) -> Iterator[tuple[gr.components.Component, Callable[[Any], str | None]]]:
    label, name = field.replace("_", " ").capitalize(), _quoted(field, '"')
    common: dict[str, Any] = {"min_width": 160, "elem_classes": "fr-filter"}
    if choices:
        pairs = [(choice.replace("_", " "), choice) for choice in choices]
        component = gr.Dropdown(pairs, multiselect=True, label=label, **common)
        yield component, lambda chosen: f"{name} in ({', '.join(map(_quoted, chosen))})" if chosen else None
    elif kind == "bool":
        yield (
            gr.Dropdown(["any", *_WORDS], value="any", label=label, **common),
            lambda chosen: f"{name} = {_WORDS[chosen]}" if chosen in _WORDS else None,
        )
    elif kind == "str":
        yield gr.Textbox(label=label, placeholder="contains …", **common), lambda text: _contains(name, text)
    else:
        for bound, operator in (("at least", ">="), ("at most", "<=")):
            number = gr.Number(label=f"{label}, {bound}", precision=0 if kind == "int" else None, **common)
            yield number, partial(_bounded, name, operator)


def _bounded(name: str, operator: str, value: float | None) -> str | None:
    return None if value is None else f"{name} {operator} {value!r}"


def _quoted(text: str, mark: str = "'") -> str:
    return f"{mark}{text.replace(mark, 2 * mark)}{mark}"


def _contains(name: str, text: str | None) -> str | None:
    words = (text or "").strip()
    for special in "\\%_":
        words = words.replace(special, f"\\{special}")
    return f"{name} like {_quoted(f'%{words}%')}" if words else None
