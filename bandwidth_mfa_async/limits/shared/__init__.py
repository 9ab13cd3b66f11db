"""One rate limit for several processes, kept in Redis."""
