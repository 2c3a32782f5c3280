"""OpenAI's own client asks for embeddings."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from fashion_retrieval import FashionModel
from fashion_retrieval.serve.engine import Engine
from fashion_retrieval.serve.state import Service
from tests.serve.conftest import photo_file
from tests.support.galleries import tiny_model
from tests.support.serving import running

openai = pytest.importorskip("openai", reason="NO OPENAI CLIENT, so it is not tested against the service here")

PHOTO = photo_file(2)
URL = f"data:image/png;base64,{base64.b64encode(PHOTO).decode()}"
TEXTS = ["a red dress", "blue jeans"]


@pytest.fixture(scope="module")
def model() -> FashionModel:
    return tiny_model()


@pytest.fixture(scope="module")
def client(model: FashionModel) -> Iterator[Any]:
    engine = Engine(model)
    with (
        running(Service(engine), keys=["0123456789abcdef"]) as port,
        openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="0123456789abcdef", max_retries=0) as made,
    ):
        yield made
    engine.close()


@pytest.fixture(scope="module")
def name(client: Any) -> str:
    (found,) = client.models.list()
    return str(found.id)


def rows(answer: Any) -> np.ndarray:
    assert [row.index for row in answer.data] == list(range(len(answer.data)))
    return np.array([row.embedding for row in answer.data])


@pytest.mark.parametrize("encoding", [{}, {"encoding_format": "float"}])  # without one the client asks for base64
def test_texts_and_photos(client: Any, model: FashionModel, name: str, encoding: dict[str, str]) -> None:
    texts, photo = model.encode(texts=TEXTS), model.encode(images=PHOTO)
    np.testing.assert_allclose(
        rows(client.embeddings.create(model=name, input=TEXTS[0], **encoding)), texts[:1], atol=1e-6
    )
    answer = client.embeddings.create(model=name, input=TEXTS, **encoding)
    np.testing.assert_allclose(rows(answer), texts, atol=1e-6)
    assert (answer.model, answer.usage.prompt_tokens, answer.usage.total_tokens) == (name, 9, 9)
    answer = client.embeddings.create(model=name, input=[URL, TEXTS[1]], **encoding)
    np.testing.assert_allclose(rows(answer), [photo[0], texts[1]], atol=1e-6)


def test_dimensions_are_the_first_normalized_again(client: Any, model: FashionModel, name: str) -> None:
    first = model.encode(images=PHOTO)[:, :6]
    found = rows(client.embeddings.create(model=name, input=URL, dimensions=6))
    np.testing.assert_allclose(found, first / np.linalg.norm(first), atol=1e-6)


def test_errors_are_those_that_the_client_knows(client: Any, name: str) -> None:
    with pytest.raises(openai.NotFoundError, match="404"):
        client.embeddings.create(model="text-embedding-3-small", input="a red dress")
    with pytest.raises(openai.UnprocessableEntityError) as refused:
        client.embeddings.create(model=name, input=URL, dimensions=1_000)
    assert refused.value.body["detail"] == "dimensions must be at most 16, got 1000"
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="another").embeddings.create(model=name, input="a red dress")
