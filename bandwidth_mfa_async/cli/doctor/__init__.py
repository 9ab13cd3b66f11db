"""The command `doctor`: diagnose configuration and connection problems."""
