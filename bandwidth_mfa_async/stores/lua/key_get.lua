-- args: digest.
return get(records, args[1], now)
