"""Training of the embedded model: data, two stages, and the checkpoint they end in."""
