"""What requests hold, as the OpenAPI page tells it."""

from __future__ import annotations

import re
from base64 import b64decode
from binascii import Error as Base64Error
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetPydanticSchema,
    field_validator,
    model_validator,
)
from pydantic_core import core_schema, from_json

from fashion_retrieval._utils.checks import LONGEST_ID
from fashion_retrieval.errors import TaxonomyError
from fashion_retrieval.inference.colors import PALETTE
from fashion_retrieval.taxonomy import Taxonomy

MOST_RESULTS = 1_000
MOST_TEXT = 4_096
_MOST_PHOTOS = 64
_MOST_ENTRIES, _LONGEST_ENTRY = 5_000, 256
"""Of an own taxonomy, with names and lists, and the letters of each."""
_MOST_PROMPTS = 30_000
"""That an own taxonomy makes at the worst: each takes the model about a millisecond, and it keeps a few more."""
_PHOTO = "base64 of a photo's file, alone or as a data URL; nothing is fetched and no path is read"


@dataclass(frozen=True, slots=True)
class Upload:
    """A photo's file, and what errors call it."""

    content: bytes
    name: str = "the photo"


def decode_photo(given: object) -> object:
    """Base64 or a data URL as an `Upload`."""
    if isinstance(given, Upload):
        return given
    if not isinstance(given, str):  # pydantic tells of ValueErrors
        raise ValueError(  # noqa: TRY004  # as the line above says
            f"a photo must be a text, base64 of its file, got {type(given).__name__}"
        )
    head, comma, data = given.partition(",")
    if given.startswith("data:"):
        if not comma or not head.endswith(";base64"):
            raise ValueError("a data URL must be 'data:image/jpeg;base64,…'; encode the photo's file as base64")
    else:
        data = given
    if "://" in data[:16]:
        raise ValueError("a photo must be base64 of its file; addresses are not fetched, send the file")
    try:
        content = b64decode(data, validate=True)
    except (Base64Error, ValueError) as error:
        raise ValueError(f"a photo must be base64 of its file, which this is not ({error})") from error
    return Upload(content)


def parse_json(given: object) -> object:
    """What a form's field says in JSON."""
    if isinstance(given, str) and given.lstrip()[:1] in ("{", "["):
        try:
            return from_json(given, allow_inf_nan=False)
        except ValueError as error:
            raise ValueError(f"must be JSON, which this is not ({error})") from error
    return given


_ANY_UPLOAD = GetPydanticSchema(
    lambda _source, _handler: core_schema.is_instance_schema(Upload),
    lambda _schema, _handler: {"type": "string", "format": "byte", "description": _PHOTO},
)
EXAMPLE_PHOTO = (
    "iVBORw0KGgoAAAANSUhEUgAAADAAAABAAQMAAABm7mYFAAAABlBMVEX////cFDzQkLT4AAAAbklEQVR42s3NwQnCUBRE0fNfAsnO"
    "34HZ2UZKsdSUYAmWENxEJPBcyCdrceNshnsZGH7NeSe4dtBl3nHKfAqVXnxmYSIOmik6C0qTBeZGAVP0UJscYWxUoTdsmdsaL7hF"
    "ruwLl8wHhsz1uP3z+jpvLAkZ8RePXxIAAAAASUVORK5CYII="
)
"""A drawn shirt, small enough for the API's page."""
Photo = Annotated[Upload, _ANY_UPLOAD, BeforeValidator(decode_photo)]
_LONG_WORD = re.compile(r"\S{64}(?=\S)")
Text = Annotated[
    str,
    Field(min_length=1, max_length=MOST_TEXT, pattern=r"\S"),
    # Tokenizers take the square of a word's length: without a space thousands of letters would stop the model.
    AfterValidator(lambda text: _LONG_WORD.sub(r"\g<0> ", text)),
]
Id = Annotated[str, Field(min_length=1, max_length=LONGEST_ID, pattern=r"^[^\x00]*$")]
Weight = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Number = Annotated[float, Field(allow_inf_nan=False)]

Box = Annotated[list[Number], Field(min_length=4, max_length=4)]


class Asked(BaseModel):
    """A request: unknown fields are refused, and JSON must have the types that it says."""

    model_config = ConfigDict(extra="forbid", json_schema_serialization_defaults_required=True)


class RecognizeRequest(Asked):
    """Photos to recognize."""

    photos: list[Photo] = Field(min_length=1, max_length=_MOST_PHOTOS, description=f"Each {_PHOTO}.")
    boxes: Annotated[list[Box] | None, BeforeValidator(parse_json)] = Field(
        None,
        description="With one photo: a garment each, x1, y1, x2, y2 in pixels of the upright photo.",
        max_length=64,
    )
    taxonomy: Annotated[Literal["default", "deepfashion"] | dict[str, Any] | None, BeforeValidator(parse_json)] = Field(
        None, description="A taxonomy by name, or your own; none is the model's."
    )
    top_k: int = Field(3, ge=1, le=100, description="How many categories and values to tell.")
    masks: bool = Field(False, description="Add masks, as COCO's uncompressed run lengths.")

    @field_validator("taxonomy")
    @classmethod
    def _bounded(cls, taxonomy: str | dict[str, Any] | None) -> str | dict[str, Any] | None:
        if isinstance(taxonomy, dict):
            _check_size(taxonomy)
            try:
                count = _most_prompts(Taxonomy.load(taxonomy))
            except TaxonomyError:
                return taxonomy  # the model tells the faults
            if count > _MOST_PROMPTS:
                raise ValueError(f"an own taxonomy may make {_MOST_PROMPTS} prompts, got up to {count}; split it")
        return taxonomy

    @model_validator(mode="after")
    def _one_photo(self) -> RecognizeRequest:
        if self.boxes is not None and len(self.photos) != 1:
            raise ValueError(f"boxes go with one photo, got {len(self.photos)}; send a request for each")
        return self


class TextInput(Asked):
    """A text to encode."""

    text: Text


class ImageInput(Asked):
    """A photo to encode."""

    image: Photo


def _embedded(given: object) -> object:
    """One item of `input`: a data URL is a photo, any other string a text."""
    if not isinstance(given, str):
        return given
    return {"image": given} if given.startswith("data:image/") else {"text": given}


Embedded = Annotated[
    TextInput | ImageInput,
    BeforeValidator(_embedded, json_schema_input_type=Text | TextInput | ImageInput),
]


class EmbeddingsRequest(Asked):
    """OpenAI's request for embeddings, with photos besides texts."""

    input: Annotated[
        list[Embedded],
        Field(min_length=1, max_length=_MOST_PHOTOS),
        BeforeValidator(
            lambda given: given if isinstance(given, list) else [given],
            json_schema_input_type=Text | TextInput | ImageInput | list[Text | TextInput | ImageInput],
        ),
    ] = Field(description="A text, a photo as data URL, {'text': …}, {'image': …}, or a list of these.")
    model: str | None = Field(None, max_length=MOST_TEXT, description="The served model; /v1/models names it.")
    encoding_format: Literal["float", "base64"] = Field("float", description="base64 is little-endian float32.")
    dimensions: int | None = Field(None, ge=1, description="The first numbers only, normalized again.")
    user: str | None = Field(None, description="Not used.")


class ComposeRequest(Asked):
    """A photo and a wish."""

    image: Photo
    text: Text = Field(description="What should be different.", examples=["in red with long sleeves"])
    text_weight: Weight | None = Field(None, description="0 is the photo alone, 1 the text alone; none is 0.5.")


def _one_of(*names: str) -> dict[str, Any]:
    """At least one of these fields, as JSON Schema says it."""
    return {"anyOf": [{"required": [name], "properties": {name: {"type": "string"}}} for name in names]}


class SearchRequest(Asked):
    """A query: a text, a photo or an id of the gallery, or one of the two with a text."""

    model_config = ConfigDict(json_schema_extra=_one_of("text", "image", "id"))

    text: Text | None = Field(None, description="What it should look like; with a photo, what should be different.")
    image: Photo | None = None
    id: Id | None = Field(None, description="A photo of the gallery; it is left out of the results.")
    text_weight: Weight | None = Field(None, description="As in /v1/compose.")
    where: Annotated[str, Field(min_length=1, max_length=10_000)] | None = Field(
        None, description="A filter over the gallery's fields.", examples=["category = 'dress' and color != 'red'"]
    )
    top_k: int = Field(10, ge=1, le=MOST_RESULTS, description="How many results.")
    offset: int = Field(0, ge=0, le=10 * MOST_RESULTS, description="How many results to pass over.")
    exclude: Annotated[list[Id], BeforeValidator(parse_json)] = Field(
        [], max_length=1_000, description="Ids to leave out."
    )
    min_score: Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)] | None = Field(
        None, description="Leave out results of lower scores."
    )
    group_by: Annotated[str, Field(min_length=1, max_length=256)] | None = Field(
        None, description="A field of the gallery: the best result of each of its values."
    )
    unique: bool = Field(False, description="Leave out near-duplicates of better results.")

    @model_validator(mode="after")
    def _one_query(self) -> SearchRequest:
        if self.image is not None and self.id is not None:
            raise ValueError("a query has a photo or an id, got both; leave one out")
        if self.image is None and self.id is None and self.text is None:
            raise ValueError("a query needs a text, an image or an id")
        return self


class AddRequest(Asked):
    """Photos for a gallery."""

    photos: list[Photo] = Field(min_length=1, max_length=_MOST_PHOTOS)
    ids: Annotated[list[Id], BeforeValidator(parse_json)] = Field(description="A name for each.")
    metadata: Annotated[list[dict[str, Any]] | None, BeforeValidator(parse_json)] = Field(
        None, description="Values by field, for each."
    )

    @model_validator(mode="after")
    def _as_many(self) -> AddRequest:
        if len(self.ids) != len(self.photos) or len(self.metadata or self.photos) != len(self.photos):
            raise ValueError(f"ids and metadata must be as many as the photos, {len(self.photos)}")
        return self


class DeleteRequest(Asked):
    """Photos to remove."""

    ids: list[Id] = Field(min_length=1, max_length=100)


def _check_size(taxonomy: dict[str, Any]) -> None:
    entries: list[Any] = [taxonomy]
    for count, entry in enumerate(entries, start=1):  # which grows
        if count > _MOST_ENTRIES:
            raise ValueError(f"an own taxonomy may have {_MOST_ENTRIES} entries, got more; split it")
        if isinstance(entry, str) and len(entry) > _LONGEST_ENTRY:
            raise ValueError(f"texts of a taxonomy may have {_LONGEST_ENTRY} letters, got {len(entry)}; shorten it")
        if isinstance(entry, dict):
            entries += entry.keys()
        if isinstance(entry, dict | list):
            entries += entry.values() if isinstance(entry, dict) else entry


def _most_prompts(taxonomy: Taxonomy) -> int:
    """How many there are of each category in each color, and of each value for each category."""
    groups = taxonomy.category, *taxonomy.attributes
    categories, *attributes = (len(one.templates) * sum(len(value.phrases) for value in one.values) for one in groups)
    each = sum(attributes) + len(PALETTE) * len(taxonomy.category.templates)
    return (len(PALETTE) + 1) * categories + len(taxonomy.category.values) * each
