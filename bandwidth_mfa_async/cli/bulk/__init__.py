"""The `bulk` command."""
