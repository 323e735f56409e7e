"""The table of a paper, read back cell by cell, and the BibTeX entries of its methods."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from pybtex.database import parse_string

from pruners.errors import StudyError
from pruners.methods import METHODS
from studies.bibliography import REFERENCES, bibtex
from studies.commands.exporting import export_study
from studies.latex import escaped
from studies.paper_tables import latex_table, markdown_table, paper_table, write_tables
from studies.reading import StoredBudget, StoredStudy

LABELS = {"searched": "searched", "VisionDrop": "visiondrop", "DeSAP": "desap", "dense": "dense"}


@pytest.fixture(scope="module")
def results(make_result):
    return [
        make_result(2.0, 64, {"searched": 0.1, "visiondrop": 0.3, "desap": 0.1})[0],
        make_result(4.0, 192, {"searched": 0.05, "visiondrop": 0.06, "desap": 0.02})[0],
    ]


def _latex_rows(text):
    """Cells of each row, by budget and method, and the header."""
    body = re.search(r"\\toprule(.*)\\bottomrule", text, re.DOTALL).group(1)
    rows, budget = {}, None
    lines = [line.strip() for line in body.splitlines() if "\\midrule" not in line and line.strip()]
    header, *lines = lines
    for line in lines:
        assert line.endswith(r"\\")
        line = line.removesuffix(r"\\").strip()
        if found := re.match(r"\\multicolumn\{(\d+)\}\{c\}\{\\textit\{(.*)\}\}$", line):
            assert int(found[1]) == header.count("&") + 1
            budget = found[2]
            continue
        cells = [cell.strip() for cell in line.split("&")]
        rows[budget, LABELS[re.sub(r"~\\cite\{\w+\}", "", cells[0])]] = cells
    return rows, [cell.strip() for cell in header.removesuffix(r"\\").split("&")]


def _markdown_rows(text):
    table = [line for line in text.splitlines() if line.startswith("|")]
    split = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    rows, budget = {}, None
    for cells in split[2:]:
        if not any(cells[1:]):
            budget = cells[0].strip("*")
            continue
        rows[budget, LABELS[cells[0]]] = cells
    return rows, split[0]


@pytest.mark.parametrize(
    ("write", "read", "bold"),
    [
        (latex_table, _latex_rows, r"\\textbf\{([\d.]+)\}"),
        (markdown_table, _markdown_rows, r"\*\*([\d.]+)\*\*"),
    ],
)
def test_every_cell_is_a_result_and_the_best_are_bold(results, write, read, bold):
    rows, header = read(write(paper_table(results)))
    assert header[3:5] == ["counting", "digits"]
    assert len({len(cells) for cells in rows.values()} | {len(header)}) == 1
    assert set(rows) == {(None, "dense")} | {
        (result.budget, name) for result in results for name in ("searched", "visiondrop", "desap")
    }
    for result in results:
        printed = {}
        for name in ("searched", "visiondrop", "desap"):
            schedule, cells = result.schedule(name), rows[result.budget, name]
            assert cells[1] == f"{schedule.mean_visual_tokens:.1f}"
            assert float(cells[2]) == schedule.tflops
            evidence = schedule.evidence
            values = [evidence.tasks["counting"], evidence.tasks["digits"]]
            values.append(evidence.relative_accuracy)
            shown = [re.search(r"[\d.]+", cell)[0] for cell in cells[3:]]
            assert shown == [f"{100 * value:.1f}" for value in values]
            low, high = evidence.interval_95
            assert f"[{100 * low:.1f}, {100 * high:.1f}]" in cells[-1]
            printed[name] = [
                (float(value), cell) for value, cell in zip(shown, cells[3:], strict=True)
            ]
        for column in range(3):
            most = max(row[column][0] for row in printed.values())
            for row in printed.values():
                value, cell = row[column]
                found = re.search(bold, cell)
                assert (found is not None) == (value == most)
                assert found is None or float(found[1]) == value
    assert not re.search(bold, " ".join(rows[None, "dense"]))


def test_a_dagger_is_where_nothing_is_significant(results):
    rows, _ = _latex_rows(latex_table(paper_table(results)))
    for result in results:
        for comparison in result.comparisons:
            if comparison.other != "dense":
                marked = r"$^\dagger$" in rows[result.budget, comparison.other][-1]
                assert marked != comparison.significant
    assert any(r"$^\dagger$" in cells[-1] for cells in rows.values())
    assert "Not significantly different" in paper_table(results).caption
    (one,) = [result for result in results if result.budget == "4 TFLOPs"]
    everything = [each.model_copy(update={"significant": True}) for each in one.comparisons]
    clear = one.model_copy(update={"comparisons": tuple(everything)})
    assert "Not significantly" not in paper_table([clear]).caption


def test_what_was_flattered_has_an_asterisk_in_both(results):
    (result, _) = results
    schedules = [
        schedule.model_copy(update={"measured_share": 0.9})
        if schedule.name == "desap"
        else schedule
        for schedule in result.schedules
    ]
    table = paper_table([result.model_copy(update={"schedules": tuple(schedules)})])
    rows, _ = _latex_rows(latex_table(table))
    assert [name for (_, name), cells in rows.items() if "$^*$" in cells[-1]] == ["desap"]
    markdown = markdown_table(table)
    (row,) = [line for line in markdown.splitlines() if r"\*" in line and line.startswith("|")]
    assert row.startswith("| DeSAP ")
    assert r"\* Measured with over 1.2 times" in markdown


def test_names_of_tasks_are_typeset_as_they_are(results):
    (result, _) = results
    renamed = {"counting": "a_b & 50% #1", "digits": "{x}^~\\$"}

    def rename(schedule):
        tasks = {renamed[task]: value for task, value in schedule.evidence.tasks.items()}
        evidence = schedule.evidence.model_copy(update={"tasks": tasks})
        return schedule.model_copy(update={"evidence": evidence})

    schedules = tuple(rename(schedule) for schedule in result.schedules)
    text = latex_table(paper_table([result.model_copy(update={"schedules": schedules})]))
    (header,) = [line for line in text.splitlines() if "Method &" in line]
    assert r"a b \& 50\% \#1" in header
    assert r"\{x\}\textasciicircum{}\textasciitilde{}\textbackslash{}\$" in header
    assert escaped("plain words") == "plain words"


def test_wide_tables_take_both_columns(results):
    assert r"\begin{table}" in latex_table(paper_table(results))
    (result, _) = results

    def widen(schedule):
        tasks = {f"task {number}": 0.5 for number in range(3)}
        evidence = schedule.evidence.model_copy(update={"tasks": tasks})
        return schedule.model_copy(update={"evidence": evidence})

    schedules = tuple(widen(schedule) for schedule in result.schedules)
    wide = latex_table(paper_table([result.model_copy(update={"schedules": schedules})]))
    assert r"\begin{table*}" in wide
    assert r"\end{table*}" in wide


def test_files_are_written_for_a_new_folder(results, tmp_path):
    written = write_tables(results, tmp_path / "new" / "folder")
    assert [path.name for path in written] == ["table.tex", "table.md", "references.bib"]
    cited = set(re.findall(r"\\cite\{(\w+)\}", written[0].read_text()))
    assert cited == {"visiondrop", "desap"}
    assert set(parse_string(written[2].read_text(), "bibtex").entries) == cited
    with pytest.raises(StudyError, match="at least one budget"):
        write_tables([], tmp_path)


def test_every_published_method_has_an_entry_that_bibtex_reads():
    published = [name for name, method in METHODS.items() if not method.control]
    parsed = parse_string(bibtex([*published, "searched", "dense", *METHODS]), "bibtex")
    assert list(parsed.entries) == published == list(REFERENCES)
    for name, entry in parsed.entries.items():
        source = METHODS[name].source
        assert f"arXiv {entry.fields['eprint']}" in source
        assert entry.fields["url"].endswith(entry.fields["eprint"])
        year = re.search(r"\b20\d\d\b", source.partition("arXiv")[0])
        if year is not None:
            assert entry.fields["year"] == year[0]
            assert "booktitle" in entry.fields or "journal" in entry.fields
        else:  # known on arXiv alone, whose identifiers begin with the year
            assert entry.type == "misc"
            assert entry.fields["year"] == f"20{entry.fields['eprint'][:2]}"
        people = entry.persons["author"]
        assert len(people) >= 4
        assert all(person.last_names and person.first_names for person in people)
        assert not any("others" in str(person) for person in people)


def test_rows_of_methods_without_a_paper_cite_nothing(make_result):
    losses = {"searched": 0.1, "random": 0.2}
    result, _ = make_result(2.0, 64, losses, methods=("random",))
    table = paper_table([result])
    assert r"\cite" not in latex_table(table)
    assert bibtex(table.schedules) == ""
    assert "random tokens" in markdown_table(table)


def test_the_export_command_writes_the_same_texts(results, identity, tmp_path, capsys):
    budgets = tuple(StoredBudget(result.budget, (), result, None, None) for result in results)
    study = StoredStudy("a-study", tmp_path, identity, budgets)
    files = {path.name: path.read_text() for path in write_tables(results, tmp_path)}
    names = {"latex": "table.tex", "markdown": "table.md", "bibtex": "references.bib"}
    for form, name in names.items():
        export_study(study, form, None, None)
        assert capsys.readouterr().out == files[name]
        export_study(study, form, "2 TFLOPs", tmp_path / "one")
        text = (tmp_path / "one").read_text()
        assert ("4 TFLOPs" in files[name]) == (form != "bibtex")
        assert "4 TFLOPs" not in text
    begun = replace(study, budgets=(replace(budgets[0], result=None),))
    with pytest.raises(StudyError, match="none is reported yet"):
        export_study(begun, "latex", None, None)
