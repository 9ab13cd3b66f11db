"""`python -m bandwidth_mfa_async` is `bandwidth-mfa`."""

from .cli import main

main()
