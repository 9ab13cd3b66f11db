"""Opt-in measurements; each says in one line what it measures, and compares within one run."""
