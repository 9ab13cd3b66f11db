"""The parts that bulk runs and jobs share and that need no client: intake, deduplication, tasks, circuit breaker."""
