"""A model and a gallery that the tests of the service share."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image, ImageDraw

from fashion_retrieval import FashionModel, Gallery
from fashion_retrieval.serve.app import create_app
from fashion_retrieval.serve.engine import Engine
from fashion_retrieval.serve.state import Service

HERE = "http://127.0.0.1:8000"


def photo_file(number: int, *, kind: str = "PNG") -> bytes:
    """The file of a drawn shirt, of another color and size for each number."""
    photo = Image.new("RGB", (160 + 10 * number, 220), "white")
    color = ("crimson", "navy", "forestgreen", "gold", "black", "purple")[number % 6]
    outline = [
        (40, 40),
        (65, 30),
        (95, 30),
        (120, 40),
        (150, 90),
        (128, 104),
        (116, 84),
        (116, 190),
        (44, 190),
        (44, 84),
        (32, 104),
        (10, 90),
    ]
    ImageDraw.Draw(photo).polygon(outline, fill=color)
    buffer = BytesIO()
    photo.save(buffer, format=kind)
    return buffer.getvalue()


def alike(one: Any, other: Any) -> bool:
    """Whether two JSON values are equal, but for numbers that a batch of another size rounds differently."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(alike(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(alike, one, other))
    if isinstance(one, float) and isinstance(other, float | int):
        return abs(one - other) <= 2e-4
    return bool(one == other)


@pytest.fixture(scope="session")
def model() -> FashionModel:
    return FashionModel.from_pretrained("compact", device="cpu", dtype="float32")


@pytest.fixture
def engine(model: FashionModel) -> Iterator[Engine]:
    made = Engine(model)
    yield made
    made.close()


@pytest.fixture
def gallery(model: FashionModel, tmp_path: Path) -> Iterator[Gallery]:
    paths = [tmp_path / f"{number}.png" for number in range(4)]
    for number, path in enumerate(paths):
        path.write_bytes(photo_file(number))
    with Gallery.create(tmp_path / "gallery", model, fields={"price": int}) as made:
        made.add(paths, [f"shirt/{n}" for n in range(4)], [{"price": 10 * n} for n in range(4)])
        yield made


@pytest.fixture
def service(engine: Engine, gallery: Gallery, tmp_path: Path) -> Service:
    return Service(engine, {"shop": gallery}, uploads={"shop": tmp_path / "gallery/photos"})


@pytest.fixture
def client(service: Service) -> Iterator[TestClient]:
    with TestClient(create_app(service), base_url=HERE) as made:
        yield made
