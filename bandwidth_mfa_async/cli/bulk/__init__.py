"""The command `bulk`: send a code to every number in a file."""
