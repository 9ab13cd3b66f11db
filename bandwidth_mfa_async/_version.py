"""The version: the only place that the package, the build and the User-Agent take it from."""

__version__ = "0.1.0"
