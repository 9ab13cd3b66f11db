"""Connections to Redis, shared by the limits and the ledger."""
