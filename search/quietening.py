"""Leaving the terminal to this program where libraries print as they work."""

from __future__ import annotations


def show_no_progress_bars() -> None:
    """Switch off the bars of transformers and of the hub.

    To be called before weights are loaded, in whichever process that happens: each worker would
    draw bars of its own amid those of the search.
    """
    from transformers.utils.logging import disable_progress_bar  # imported late: it costs a second

    disable_progress_bar()
