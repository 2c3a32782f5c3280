"""Embeddings of many images in a folder of shards, and how well they are found in Parquet files."""

from fashion_retrieval.shards.encode import ShardReport, encode_shards
from fashion_retrieval.shards.retrieval import RetrievalEvaluation, evaluate_retrieval

__all__ = ["RetrievalEvaluation", "ShardReport", "encode_shards", "evaluate_retrieval"]
