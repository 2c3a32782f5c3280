"""Where a gallery keeps its rows: LanceDB or Milvus, and exact search in memory."""
