"""Embeddings of many images in a folder of shards."""

from fashion_retrieval.shards.encode import ShardReport, encode_shards

__all__ = ["ShardReport", "encode_shards"]
