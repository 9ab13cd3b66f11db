"""The version: the only place that the package, the build and the User-Agent take it from."""

__version__ = "0.2.0"
