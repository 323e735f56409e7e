from __future__ import annotations

import re
from typing import get_args

import pytest
import typer

from search.command_line import application
from search.outcomes import Stopped, nothing_found
from space.budgets import Budget


@pytest.mark.parametrize(
    ("stopped", "says"),
    [
        ("trials", "all trials are done.*--trials"),
        ("timeout", "time limit.*--timeout"),
        ("evaluations", "evaluations are used up.*more samples"),
        ("converged", "nothing better.*another --strategy"),
        ("interrupted", "interrupted.*goes on"),
    ],
)
def test_a_search_that_found_nothing_says_why_and_what_helps(stopped: Stopped, says: str) -> None:
    message = nothing_found(Budget("share", 0.11), stopped)
    assert re.search(f"no trial .* at 11% .*{says}", message)


def test_every_reason_has_its_advice_and_the_options_exist() -> None:
    messages = [nothing_found(Budget("share", 0.11), stopped) for stopped in get_args(Stopped)]
    assert len({message.rpartition("; ")[2] for message in messages}) == len(messages)
    command = typer.main.get_command(application)
    search = getattr(command, "commands", {"search": command})["search"]
    options = {name for parameter in search.params for name in parameter.opts}
    named = set(re.findall(r"--[a-z-]+", " ".join(messages)))
    assert named
    assert named <= options
