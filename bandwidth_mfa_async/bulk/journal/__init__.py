"""The journal of a bulk run: a SQLite file with the state of every item."""
