"""What responses hold, as the OpenAPI page tells it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from fashion_retrieval.serve.problems import Problem


class Scored(BaseModel):
    """A name with its probability."""

    name: str = Field(examples=["polo"])
    probability: float = Field(examples=[0.87])


class AttributeFound(BaseModel):
    """One attribute of a garment."""

    group: str = Field(examples=["sleeve"])
    value: str | None = Field(description="None where it is not visible or does not apply.", examples=["short_sleeve"])
    probability: float = Field(examples=[0.99])
    status: str = Field(examples=["visible", "not_visible", "not_applicable"])
    alternatives: list[Scored]


class ColorFound(BaseModel):
    """A color with its share of the garment."""

    name: str = Field(examples=["pink"])
    hex: str = Field(examples=["#e57a9a"])
    share: float = Field(examples=[0.91])


class MaskFound(BaseModel):
    """COCO's uncompressed run lengths: down the columns, the first counts pixels outside."""

    size: tuple[int, int] = Field(examples=[[534, 400]])
    counts: list[int] = Field(examples=[[5069, 17, 208514]])


class GarmentFound(BaseModel):
    """One garment."""

    box: tuple[float, float, float, float] = Field(
        description="x1, y1, x2, y2 in pixels of the upright photo.", examples=[[9.0, 32.0, 366.0, 445.0]]
    )
    score: float = Field(description="Of the region.", examples=[0.92])
    kind: str | None = Field(examples=["upper"])
    category: Scored
    categories: list[Scored]
    attributes: dict[str, AttributeFound]
    colors: list[ColorFound] = Field(description="The largest first.")
    color: str | None = Field(examples=["pink"])
    area: float = Field(description="Share of the photo.", examples=[0.52])
    mask: MaskFound | None = None


class RecognitionFound(BaseModel):
    """What is in one photo."""

    source: str | None = Field(examples=["pink-polo.jpg"])
    width: int = Field(examples=[400])
    height: int = Field(examples=[534])
    model_id: str = Field(examples=["compact"])
    garments: list[GarmentFound]


class PhotoFailed(BaseModel):
    """A photo that can't be used; the others of its request have their results."""

    source: str
    error: Problem


class RecognizeResponse(BaseModel):
    """One result a photo, in order."""

    model: str = Field(examples=["compact"])
    results: list[RecognitionFound | PhotoFailed]


class EmbeddingRow(BaseModel):
    """One embedding, L2-normalized."""

    object: Literal["embedding"] = "embedding"
    index: int = Field(examples=[0])
    embedding: list[float] | str = Field(examples=[[0.012, -0.083, 0.044]])


class Usage(BaseModel):
    """Tokens of the texts."""

    prompt_tokens: int = Field(examples=[5])
    total_tokens: int = Field(examples=[5])


class EmbeddingsResponse(BaseModel):
    """Embeddings in the order of the input."""

    object: Literal["list"] = "list"
    data: list[EmbeddingRow]
    model: str
    usage: Usage


class ComposeResponse(BaseModel):
    """A query for a gallery of one's own."""

    model: str = Field(examples=["compact"])
    embedding: list[float] = Field(examples=[[0.012, -0.083, 0.044]])


class WordFound(BaseModel):
    """A word of the text."""

    word: str = Field(examples=["red"])
    share: float = Field(description="Of what all words moved the query by.", examples=[0.7])


class ExplainResponse(ComposeResponse):
    """The query, and where it comes from."""

    photo: float = Field(description="The share of the photo; that of the text is the rest.", examples=[0.32])
    text: float = Field(examples=[0.68])
    gates: tuple[float, float] | None = Field(description="Of the composer's branches.", examples=[[0.1, 0.5]])
    words: list[WordFound]


class ModelFound(BaseModel):
    """A served model."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "fashion-retrieval"
    embedding_dim: int
    backend: str
    device: str
    fingerprint: str
    taxonomy: str
    categories: list[str]
    attributes: dict[str, list[str]]


class ModelsResponse(BaseModel):
    """OpenAI's list of models."""

    object: Literal["list"] = "list"
    data: list[ModelFound]


class GalleryFound(BaseModel):
    """A gallery."""

    name: str = Field(examples=["shop"])
    count: int = Field(examples=[43])
    fields: dict[str, str] = Field(description="Type by field: str, int, float or bool.")
    taxonomy: str | None
    writable: bool


class MatchFound(BaseModel):
    """A photo of a gallery."""

    id: str = Field(examples=["striped-shirt.jpg"])
    score: float = Field(description="Cosine to the query.", examples=[0.338])
    fields: dict[str, str | int | float | bool | None] = Field(examples=[{"category": "button_down", "color": "white"}])
    image: str | None = Field(
        description="Address of its picture; none where the gallery keeps no path.",
        examples=["/v1/galleries/shop/photos/striped-shirt.jpg/image"],
    )


class SearchResponse(BaseModel):
    """Results, best first."""

    results: list[MatchFound]
    understood: str | None = Field(
        default=None,
        description="What was searched for, where it is not the text word for word.",
        examples=["tee, not blue"],
    )


class AddResponse(BaseModel):
    """What became of the photos."""

    added: int = Field(examples=[1])
    updated: int = Field(examples=[0])
    unchanged: int = Field(examples=[0])
    failures: list[PhotoFailed]


class DeleteResponse(BaseModel):
    """How many there were."""

    deleted: int = Field(examples=[1])


class Health(BaseModel):
    """Whether the service lives, or can answer."""

    status: Literal["ok"] = "ok"
