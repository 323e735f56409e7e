"""Real benchmarks for the search: lmms-eval's tasks on one live model."""
