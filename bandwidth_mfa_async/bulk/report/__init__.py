"""Reads a journal and reports on it."""
