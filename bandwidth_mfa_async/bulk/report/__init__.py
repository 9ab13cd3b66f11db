"""The report on a journal."""
