"""The parts that bulk runs and jobs share and that need no client: reading items from an input, deduplication."""
