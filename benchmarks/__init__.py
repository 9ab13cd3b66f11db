"""Opt-in measurements. Each states its metric in its first line and compares within one run."""
