"""Questions of every kind with the answers they should get: from the library or, where it has none, the first."""

from __future__ import annotations

import base64
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from itertools import cycle
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from PIL import Image

from benchmarks.serve.bad import EMBEDDINGS, RECOGNIZE, bad_requests, problem_of
from benchmarks.serve.client import Answer, ask, form_request, json_request, request
from fashion_retrieval import FashionModel, Gallery, Match, Refinement

SHARES = {
    "recognize": 8,
    "embed photos": 12,
    "embed texts": 18,
    "compose": 8,
    "search by text": 14,
    "search by photo": 6,
    "search by photo and text": 4,
    "search by id": 8,
    "thumbnail": 10,
    "galleries": 5,
    "models": 3,
    "health": 4,
}
"""Of a hundred good questions. Recognition takes most of the time."""
TOLERANCE = 4e-3
"""Of numbers: in bfloat16 a batch of other photos or texts rounds differently."""
WISHES = ("in red", "with long sleeves", "shorter and darker", "without a pattern")
TEXTS = ("red dress", "blue jeans", "a striped shirt", "robe d'été à fleurs", "sneakers, white", "コート", "hat")
GALLERY = "shop"


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """A request and the answer it should get.

    `expected` is the body: JSON of which every part must be in the answer, or bytes; None is a problem document.
    """

    kind: str
    content: bytes = field(repr=False)
    status: int = 200
    expected: Any = None

    def fault(self, answer: Answer) -> str:
        """What is wrong with an answer; "" if nothing is."""
        try:
            if answer.status != self.status:
                return f"{self.kind}: status {answer.status}, expected {self.status}: {answer.body[:200]!r}"
            if self.expected is None:
                wrong = problem_of(answer.status, dict(answer.headers), answer.body)
            elif isinstance(self.expected, bytes):
                wrong = "" if answer.body == self.expected else "other bytes"
            else:
                wrong = difference(answer.json(), self.expected)
        except ValueError as error:
            wrong = str(error)
        return f"{self.kind}: {wrong}" if wrong else ""


def difference(found: Any, expected: Any, where: str = "answer") -> str:  # noqa: ANN401  # JSON
    """Where JSON differs from what is expected, "" if nowhere; it may have more keys. Embeddings may be base64."""
    if isinstance(expected, dict) and isinstance(found, dict):
        pairs = [(found.get(key, "nothing"), value, f"{where}.{key}") for key, value in expected.items()]
    elif isinstance(expected, list) and isinstance(found, str):
        return difference(np.frombuffer(base64.b64decode(found), "<f4").tolist(), expected, where)
    elif isinstance(expected, list) and isinstance(found, list) and len(found) == len(expected):
        pairs = [(*pair, f"{where}[{index}]") for index, pair in enumerate(zip(found, expected, strict=True))]
    elif isinstance(expected, float) and isinstance(found, int | float):
        near = math.isclose(found, expected, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
        return "" if near else f"{where} is {found}, expected {expected}"
    else:
        return "" if found == expected else f"{where} is {found!r:.80}, expected {expected!r:.80}"
    return next(filter(None, (difference(*pair) for pair in pairs)), "")


def shrunk(file: Path, side: int = 240) -> bytes:
    """A photo as a small JPEG."""
    written = BytesIO()
    with Image.open(file) as image:
        image.thumbnail((side, side))
        image.convert("RGB").save(written, "JPEG", quality=85)
    return written.getvalue()


def good_questions(port: int, model: FashionModel, gallery: Gallery, photos: Sequence[bytes]) -> list[Question]:
    """Questions to a running service with this model, and this gallery as `GALLERY`."""
    coded = [base64.b64encode(photo).decode() for photo in photos]
    search = f"/v1/galleries/{GALLERY}/search"
    found: list[Question] = []

    def recognized(result: object, masks: bool = False) -> dict[str, Any]:
        plain: dict[str, Any] = result.to_dict(masks=masks)  # type: ignore[attr-defined]
        return {name: value for name, value in plain.items() if name not in ("source", "model_id")}  # local names

    recognitions = [model.recognize(photo, keep_image=False) for photo in photos]
    for number, result in enumerate(recognitions):
        expected = {"results": [recognized(result)]}
        asked = json_request(RECOGNIZE, {"photos": [coded[number]]})
        if number % 2:
            asked = form_request(RECOGNIZE, [("photos", f"{number}.jpg", photos[number])])
        found.append(Question("recognize", asked, 200, expected))
    width, height = recognitions[0].width, recognitions[0].height
    box = [0, 0, width // 2, height // 2]
    found += [
        Question(
            "recognize",
            json_request(RECOGNIZE, {"photos": coded[:2], "masks": True}),
            expected={"results": [recognized(result, masks=True) for result in recognitions[:2]]},
        ),
        Question(
            "recognize",
            json_request(RECOGNIZE, {"photos": coded[:1], "boxes": [box], "taxonomy": "deepfashion", "top_k": 1}),
            expected={
                "results": [recognized(model.recognize(photos[0], boxes=[box], taxonomy="deepfashion", top_k=1))]
            },
        ),
    ]

    vectors, words = model.encode(images=photos), model.encode(texts=TEXTS)
    for number, (photo, vector) in enumerate(zip(coded, vectors, strict=True)):
        sent = f"data:image/jpeg;base64,{photo}" if number % 2 else {"image": photo}
        how = {"encoding_format": ("float", "base64")[number % 3 == 0]}
        found.append(Question("embed photos", json_request(EMBEDDINGS, {"input": sent} | how), 200, embedded([vector])))
    for text, vector in zip(TEXTS, words, strict=True):
        found.append(Question("embed texts", json_request(EMBEDDINGS, {"input": text}), 200, embedded([vector])))
    half = words[:, : model.embedding_dim // 2]
    halves = embedded(half / np.linalg.norm(half, axis=1, keepdims=True))
    content = {"input": list(TEXTS), "dimensions": half.shape[1], "encoding_format": "base64"}
    found.append(Question("embed texts", json_request(EMBEDDINGS, content), 200, halves))

    for number, photo in enumerate(coded):
        wish, weight = WISHES[number % len(WISHES)], (0.3, 0.5, 0.8)[number % 3]
        query = model.compose(photos[number], wish, text_weight=weight)[0]
        content = {"image": photo, "text": wish, "text_weight": weight}
        found.append(Question("compose", json_request("/v1/compose", content), 200, {"embedding": query.tolist()}))
        where = Refinement(model, gallery).ask(wish, photos[number], top_k=5, text_weight=weight)
        content = {"image": photo, "text": wish, "text_weight": weight, "top_k": 5}
        found.append(
            Question("search by photo and text", json_request(search, content), 200, matched(where, rounded=True))
        )
        where = gallery.search(vectors[number], 7)[2:]
        found.append(
            Question(
                "search by photo", json_request(search, {"image": photo, "top_k": 5, "offset": 2}), 200, matched(where)
            )
        )
    for text, vector, condition in zip(TEXTS, words, cycle((None, "category = 'dress'", "color != 'black'"))):
        first = [match.id for match in gallery.search(vector, 2)]
        for out in ([], first):
            where = gallery.search(vector, 10, where=condition, exclude=out)
            content = {"text": text, "where": condition, "exclude": out}
            sent = {key: value for key, value in content.items() if value}
            found.append(Question("search by text", json_request(search, sent), 200, matched(where)))

    names = [match.id for match in gallery.search(words[0], 20)]
    for name in names:
        content = {"id": name, "top_k": 5, "exclude": [name]}
        found.append(first_answer(port, "search by id", json_request(search, content)))
        path = f"/v1/galleries/{GALLERY}/photos/{quote(name, safe='')}/image"
        found.append(first_answer(port, "thumbnail", request("GET", path)))
    for kind, path in (
        ("galleries", "/v1/galleries"),
        ("galleries", f"/v1/galleries/{GALLERY}"),
        ("models", "/v1/models"),
        ("health", "/healthz"),
        ("health", "/readyz"),
    ):
        found.append(first_answer(port, kind, request("GET", path)))
    return found


def embedded(vectors: Any) -> dict[str, Any]:  # noqa: ANN401  # rows of floats
    """The answer of /v1/embeddings."""
    rows = [{"object": "embedding", "index": n, "embedding": [float(x) for x in row]} for n, row in enumerate(vectors)]
    return {"object": "list", "data": rows}


def matched(matches: Sequence[Match], *, rounded: bool = False) -> dict[str, Any]:
    """The answer of a search; where the query may be `rounded` otherwise, near ids may change places."""
    scores = [math.inf, *(one.score for one in matches), matches[-1].score if matches else 0.0]
    rows: list[dict[str, Any]] = []
    for place, one in enumerate(matches, start=1):
        near = min(scores[place - 1] - one.score, one.score - scores[place + 1]) < TOLERANCE
        rows.append({"score": one.score} | ({} if rounded and near else {"id": one.id, "fields": one.fields}))
    return {"results": rows}


def first_answer(port: int, kind: str, content: bytes) -> Question:
    """A question whose answer is asked for now, and should stay; a ValueError if it gets none."""
    answer = ask(port, content)
    if answer.status != 200:
        raise ValueError(f"{kind}: status {answer.status}: {answer.body[:300]!r}")
    if kind == "thumbnail" and not answer.body.startswith(b"\xff\xd8\xff"):
        raise ValueError(f"a thumbnail is a JPEG, got {answer.body[:8]!r}")
    return Question(kind, content, 200, answer.body if kind == "thumbnail" else answer.json())


def bad_questions(photo: bytes) -> list[Question]:
    """The bad requests that are no larger than a photo or two: a soak asks each hundreds of times."""
    asked = bad_requests(photo, GALLERY).items()
    return [Question(f"bad: {name}", content, status) for name, (status, content) in asked if len(content) < 100_000]


def mix(good: Sequence[Question], bad: Sequence[Question], count: int, *, seed: int = 0) -> Iterator[Question]:
    """`count` questions in an order drawn by the seed; every twentieth is bad, each of these in turn."""
    rng, turn = random.Random(seed), cycle(bad)
    kinds: dict[str, list[Question]] = {}
    for question in good:
        kinds.setdefault(question.kind, []).append(question)
    names = list(kinds)
    for number in range(count):
        if number % 20 == 19:
            yield next(turn)
        else:
            yield rng.choice(kinds[rng.choices(names, [SHARES[name] for name in names])[0]])
