"""Finding the best schedule: evaluators, strategies, racing, the driver, the command line."""
