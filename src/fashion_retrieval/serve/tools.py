"""What tools for agents are asked and tell. An agent reads the names, the docstrings and the descriptions."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, Field, model_validator

from fashion_retrieval.serve.requests import Asked, Id, Number, Text, Weight, parse_json

Photo = Annotated[str, Field(min_length=1)]
_GALLERY = "The gallery's name; may be left out where there is one only."


class _Query(Asked):
    gallery: str | None = Field(None, description=_GALLERY)
    photo: Photo | None = None
    id: Id | None = Field(None, description="Instead of a photo: the id of a photo of the gallery, from its results.")
    where: Annotated[str, Field(min_length=1, max_length=10_000)] | None = Field(
        None,
        description="What must hold, over the gallery's fields, with =, !=, <, >, IN, LIKE, BETWEEN, IS NULL, AND, OR, "
        "NOT: \"category = 'dress' AND color IN ('red', 'pink')\".",
    )
    top_k: int = Field(6, ge=1, le=50, description="How many results.")
    offset: int = Field(0, ge=0, le=1_000, description="How many results to pass over, for the next page.")
    unique: bool = Field(False, description="Leave out near-duplicates of better results.")
    thumbnails: bool = Field(True, description="Send a small picture of each result.")


class Recognize(Asked):
    """Say which garments are in a photo: category, color and attributes (sleeve, neckline, texture, fabric ...) of
    each with probabilities, and its box in pixels.

    Use it when asked what somebody wears, to describe or tag a photo of a product, or to find the words for a search.
    What can't be seen has the status not_visible. It sends the photo back with numbered outlines. It does not tell who
    a person is, nor brand, price or size.
    """

    photo: Photo
    boxes: Annotated[list[tuple[Number, Number, Number, Number]] | None, BeforeValidator(parse_json)] = Field(
        None,
        description="Garments to look at, x1, y1, x2, y2 in pixels each; leave it out to find them.",
        max_length=64,
    )
    top_k: int = Field(3, ge=1, le=20, description="How many alternatives to tell.")


class Search(_Query):
    """Find photos in a gallery that look like a text, a photo, or a photo of the gallery (id).

    Use it to find products by a description ("a red summer dress"), look-alikes of a photo that the user gave, or more
    like a result. text only ranks: put what must hold into where, whose fields and values list_galleries tells. With a
    photo or id, text says what should be different; for that, compose is better. Scores are cosines: they rank within
    one search and are no probabilities.
    """

    text: Text | None = Field(None, description="What it should look like, in English.")

    @model_validator(mode="after")
    def _one_query(self) -> Search:
        if self.photo is not None and self.id is not None:
            raise ValueError("a query has a photo or an id, got both; leave one out")
        if self.photo is None and self.id is None and self.text is None:
            raise ValueError("a query needs a text, a photo or an id")
        return self


class Compose(_Query):
    """Find photos like a given one, but different as the user wishes: "this one, but blue and with long sleeves".

    Use it when the user has a photo, or picked a result (id), and says what should change. In a conversation give all
    wishes so far, oldest first, with the photo or result they are about: earlier wishes that a later one contradicts
    are dropped, and the answer tells which hold. Put ids that the user has seen into exclude for others.
    """

    wishes: Annotated[list[Text], BeforeValidator(parse_json)] = Field(
        min_length=1, max_length=20, description="What should be different, oldest first: ['in blue', 'long sleeves']."
    )
    text_weight: Weight | None = Field(None, description="0 is the photo alone, 1 the wishes alone; 0.5.")
    exclude: Annotated[list[Id], BeforeValidator(parse_json)] = Field(
        [], max_length=1_000, description="Ids to leave out."
    )

    @model_validator(mode="after")
    def _one_start(self) -> Compose:
        if (self.photo is None) == (self.id is None):
            got = "neither" if self.id is None else "both"
            raise ValueError(f"compose needs a photo or an id, got {got}; to find by words alone, use search")
        return self


class ListGalleries(Asked):
    """List the galleries that can be searched: how many photos each has, and the fields and values to filter by.

    Use it before the first search, and when a filter is refused.
    """


class PhotoFound(BaseModel):
    """A photo of a gallery."""

    id: str
    score: float = Field(description="Cosine to the query.")
    fields: dict[str, str | int | float | bool | None]


class SearchFound(BaseModel):
    """Results, best first."""

    gallery: str
    understood: str | None = Field(None, description="What was searched for, where there was a text.")
    results: list[PhotoFound]


class ComposeFound(BaseModel):
    """Results, best first, and the wishes that hold."""

    gallery: str
    wishes: list[str]
    understood: str = Field(description="What was searched for; what is not wanted comes last in the results.")
    results: list[PhotoFound]


class FieldFound(BaseModel):
    """A field to filter by."""

    name: str
    type: str = Field(description="str, int, float or bool.")
    values: list[str] | None = Field(description="All that it can be; none where it is free.")


class GalleryFound(BaseModel):
    """A gallery."""

    name: str
    count: int
    fields: list[FieldFound]


class GalleriesFound(BaseModel):
    """The galleries, in the order they were given."""

    galleries: list[GalleryFound]
