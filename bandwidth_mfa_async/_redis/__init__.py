"""Connections, scripts and batches for Redis, shared by the limits and the ledger."""
