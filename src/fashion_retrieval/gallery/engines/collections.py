"""Milvus collections: how one is made for a gallery, and how one takes the place of another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fashion_retrieval.gallery.engines.base import Settings

if TYPE_CHECKING:
    from pymilvus import MilvusClient

NEXT, OLD = "__next", "__old"
"""What is put after a collection's name for what is to replace it, and for what was replaced."""
_MAX_ID, _MAX_TEXT = 4_096, 65_535


def described(client: MilvusClient, collection: str) -> str:
    """The settings that a collection keeps."""
    return str(client.describe_collection(collection)["description"])


def exists(client: MilvusClient, collection: str) -> bool:
    """Whether there is a collection, after a migration of it that was interrupted at its very end is ended."""
    if client.has_collection(collection + OLD):
        finish(client, collection)
    return bool(client.has_collection(collection))


def finish(client: MilvusClient, collection: str) -> None:
    """End a migration: the old collection has another name by now, which tells that the new one is complete."""
    from pymilvus import MilvusException

    if not client.has_collection(collection):
        try:
            client.rename_collection(collection + NEXT, collection)
        except MilvusException:  # another process may do the same
            if not client.has_collection(collection):
                raise
    client.drop_collection(collection + OLD)


def make(client: MilvusClient, collection: str, settings: Settings) -> None:
    """Make a collection of the rows of a gallery."""
    from pymilvus import CollectionSchema, DataType, FieldSchema

    types = {str: DataType.VARCHAR, int: DataType.INT64, float: DataType.DOUBLE, bool: DataType.BOOL}
    fields = [
        FieldSchema("id", DataType.VARCHAR, is_primary=True, max_length=_MAX_ID),
        FieldSchema("vector", DataType.FLOAT_VECTOR, dim=settings.embedding_dim),
        FieldSchema("digest", DataType.VARCHAR, max_length=64),
        FieldSchema("photo", DataType.VARCHAR, max_length=_MAX_ID),
    ]
    if settings.keeps_views:
        fields += [
            FieldSchema("hash", DataType.INT64),
            FieldSchema("views", DataType.VARCHAR, max_length=_MAX_TEXT),
        ]
    for name, column in settings.columns.items():
        kind = settings.types[name]
        options = {"max_length": _MAX_TEXT} if kind is str else {}
        fields += [FieldSchema(column, types[kind], **options), FieldSchema(f"{column}_set", DataType.BOOL)]
    schema = CollectionSchema(fields, description=settings.to_json())
    client.create_collection(collection, schema=schema, num_shards=1, consistency_level="Session")
