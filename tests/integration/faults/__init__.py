"""Every row of the table of faults, cold and warm, on asyncio and uvloop: outcome, ledger, pool and time."""
