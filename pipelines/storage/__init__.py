"""Where checkpoints, state and finished models are kept: folders and buckets."""
