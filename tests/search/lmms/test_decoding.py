"""Tasks' own settings of generation."""

from __future__ import annotations

import pytest

from pruners.errors import SettingsError
from search.lmms.decoding import Decoding


@pytest.mark.parametrize(
    ("settings", "temperature"),
    [
        ({}, None),
        ({"temperature": 0}, None),
        ({"temperature": 0.0, "do_sample": True}, None),
        ({"temperature": 0.7, "do_sample": False}, None),
        ({"temperature": 0.7}, 0.7),
        ({"do_sample": True}, 1.0),
    ],
)
def test_only_a_task_that_asks_for_sampling_gets_it(
    settings: dict[str, object], temperature: float | None
) -> None:
    assert Decoding.of_task(settings).temperature == temperature


def test_limits_and_stopping_are_the_tasks() -> None:
    pope = {
        "max_new_tokens": 128,
        "temperature": 0,
        "top_p": 1.0,
        "num_beams": 1,
        "until": ["\n\n"],
    }
    assert Decoding.of_task(pope) == Decoding(max_new_tokens=128, stop=("\n\n",))
    assert Decoding.of_task({"until": None}) == Decoding(max_new_tokens=1024)
    assert Decoding.of_task({"until": ["", "."]}).stop == (".",)
    with pytest.raises(SettingsError, match="until: expected a text or a list of texts"):
        Decoding.of_task({"until": [3]})


def test_an_answer_is_cut_before_whatever_stops_it_first() -> None:
    decoding = Decoding(stop=("\n\n", "USER:"))
    assert decoding.cut("a cat USER: and\n\nmore") == "a cat "
    assert decoding.cut("a cat") == "a cat"
