"""Tests of bulk sending and its journal."""
