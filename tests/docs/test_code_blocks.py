"""Every code block of the documentation runs and prints what the page says.

Python blocks are executed and their output compared; JSON is validated; commands of this program
are read by its own command line, whose options all stand on some page, and scripts must be there.
What stays unexecuted belongs to other programs that tests do not start: pip, Slurm, Ray and
lmms-eval's command line, with their settings.
Searches on the pages take minutes; tests/search runs small ones.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.core import TyperGroup, TyperOption

from pruners import Schedule
from search.arguments import repeat_options
from search.command_line import _REPEATED, application
from studies.commands.entry import COMMANDS, _application

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> list[tuple[str, str]]:
    """The language and text of each code block."""
    return _FENCE.findall(page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other, as a reader would; a text block after one is what it prints.

    A console block is so too, but for blank lines and the spaces that fill a table's lines.
    """
    for folder in ("docs", "search"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__main__"}
    printed = None
    for number, (language, text) in enumerate(blocks(page)):
        if language == "python":
            output = io.StringIO()
            with contextlib.redirect_stdout(output):
                exec(compile(text, f"{page.name}, block {number}", "exec"), names)
            printed = output.getvalue()
        elif language == "text" and printed is not None:
            assert printed == text
            printed = None
        elif language == "console" and printed is not None:
            lines = [line.rstrip() for line in printed.splitlines()]
            assert [line for line in lines if line] == text.splitlines()
            printed = None


def commands() -> list[tuple[str, list[str]]]:
    """Commands that pages tell readers to run, with the page's name."""
    found = []
    for page in PAGES:
        for language, text in blocks(page):
            if language == "bash":
                for line in text.replace("\\\n", " ").splitlines():
                    for command in line.split("&&"):
                        words = shlex.split(command, comments=True)
                        if words:
                            found.append((page.name, words))
    return found


def test_commands_of_the_program_are_read_by_it() -> None:
    read = 0
    for page, words in commands():
        if words[:2] == ["python", "search/run.py"]:
            arguments = words[2:]
        elif words[0] == "prunetune" or words[:3] == ["srun", "--overlap", "--nodes=1"]:
            arguments = words[words.index("prunetune") + 1 :]
        else:
            continue
        command, name = typer.main.get_command(application), "prunetune"
        if arguments[0] in COMMANDS:
            command, name = typer.main.get_command(_application(arguments[0])), arguments[0]
            arguments = arguments[1:]
        try:
            parse(command, name, repeat_options(arguments, _REPEATED))
        except Exception as error:
            raise AssertionError(f"{page}: {shlex.join(words)}") from error
        read += 1
    assert read > 5


def parse(command: Any, name: str, arguments: list[str]) -> None:
    """Read arguments down to the last subcommand, and call nothing."""
    if isinstance(command, TyperGroup):
        name, *arguments = arguments
        parse(command.commands[name], name, arguments)
    else:
        command.make_context(name, arguments)


def options(command: Any) -> Iterator[str]:
    """Long names of a command's options, and of its subcommands'."""
    if isinstance(command, TyperGroup):
        for subcommand in command.commands.values():
            yield from options(subcommand)
    for parameter in command.params:
        if isinstance(parameter, TyperOption):
            yield max(parameter.opts, key=len)


def test_every_option_of_the_program_stands_on_a_page() -> None:
    pages = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    programs = [application, *map(_application, COMMANDS)]
    names = {name for program in programs for name in options(typer.main.get_command(program))}
    assert len(names) > 30
    missing = [name for name in names if not re.search(rf"{name}(?![\w-])", pages)]
    assert sorted(missing) == []


def test_scripts_that_pages_run_are_there() -> None:
    for page, words in commands():
        if words[0] == "python" and words[1] != "-m":
            assert (ROOT / words[1]).exists(), f"{page}: {words[1]}"
        elif words[:2] == ["python", "-m"]:
            assert find_spec(words[2]) is not None or words[2] == "lmms_eval", f"{page}: {words[2]}"


def test_schedules_shown_are_valid() -> None:
    shown = [text for page in PAGES for language, text in blocks(page) if language == "json"]
    assert shown
    for text in shown:
        assert Schedule.model_validate_json(text).stages


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
