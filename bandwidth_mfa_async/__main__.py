"""`python -m bandwidth_mfa_async` runs the `bandwidth-mfa` command."""

from .cli import main

main()
