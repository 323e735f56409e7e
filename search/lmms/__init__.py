"""Schedules and the embedded benchmark in lmms-eval: its model `prunetune`, and its tasks.

It stands in `search`, beside the evaluators, because it measures: `pruners` is what people ship in
their inference code, and needs no benchmark.
"""
