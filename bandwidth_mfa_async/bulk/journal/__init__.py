"""The journal of a bulk run: a SQLite file with every item's state."""
