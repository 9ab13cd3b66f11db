"""The parts of bulk runs and jobs that know no client: reading items from an input."""
