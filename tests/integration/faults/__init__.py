"""Every row of the fault table, cold and warm, on asyncio and uvloop: outcome, server records, pool and time."""
