"""Strategies: how the schedules of a search are chosen."""

from search.strategies.samplers import make_sampler, strategy_settings

__all__ = ["make_sampler", "strategy_settings"]
