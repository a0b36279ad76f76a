"""What models learn from: dataset cards, sources, shards and batches."""
