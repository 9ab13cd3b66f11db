"""The ledger: the state of jobs and single codes in Redis."""
