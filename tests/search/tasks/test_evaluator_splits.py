"""Which samples stand in which split."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from pruners.errors import DataError
from pruners.published import dense, published
from studies.identity import SPLITS
from tests.search.tasks.making import Make
from tests.search.tasks.rows import MAKERS


def test_splits_are_disjoint_stratified_and_the_same_in_every_run(make: Make) -> None:
    evaluator, again = make("pope", "gqa"), make("pope", "gqa")
    keys = {split: evaluator.samples(split) for split in SPLITS}
    assert keys == {split: again.samples(split) for split in SPLITS}
    names = [key.identifier for split in SPLITS for key in keys[split]]
    assert len(names) == len(set(names)) == 2 * 44
    # Each made row is of another image, and no image counts as one of another task's.
    assert len({key.image for split in SPLITS for key in keys[split]}) == 2 * 44
    strata = Counter(
        each.sample.stratum
        for each in evaluator._chosen_in("search")
        if each.task.known.name == "pope"
    )
    assert set(strata.values()) == {4}  # six strata of equal size


def test_an_unknown_split_is_refused(make: Make) -> None:
    with pytest.raises(DataError, match=r"unknown split 'test'; choose .* search, confirm, report"):
        make("pope").samples("test")


def test_other_rows_of_the_same_number_make_another_split(
    make: Make, rows: dict[str, Path], tmp_path: Path
) -> None:
    import datasets

    from tests.search.tasks.rows import gqa, image

    changed = [gqa(number) for number in range(60)]
    for row in changed:
        row["image"] = image(999)
    datasets.Dataset.from_list(changed).to_parquet(tmp_path / "rows.parquet")
    one, other = make("gqa"), make("gqa")
    other._settings.data["gqa"] = tmp_path
    assert one.samples("search") == other.samples("search")
    assert one.split_fingerprint("search") != other.split_fingerprint("search")


def test_sharp_search_samples_depend_on_detail_and_the_other_splits_are_plain(make: Make) -> None:
    sizes = {"search_samples": 6, "confirm_samples": 12, "report_samples": 12}
    sharp, plain = make("gqa", "pope", sharp=True, **sizes), make("gqa", "pope", **sizes)
    unpruned = dense(sharp.shape)
    chosen = sharp._chosen_in("search")
    assert len(chosen) == 12
    lost = sharp._scores(unpruned, chosen) - sharp._scores(unpruned, chosen, 8)
    usual = plain._chosen_in("search")
    usually = plain._scores(unpruned, usual) - plain._scores(unpruned, usual, 8)
    assert lost.sum() > usually.sum()
    names = [key.identifier for split in SPLITS for key in sharp.samples(split)]
    assert len(names) == len(set(names))
    assert "prefers samples" in sharp.measured_on
    assert "prefers samples" not in plain.measured_on


def test_questions_on_one_image_stand_in_the_same_split(
    make: Make, tmp_path: Path, rows: dict[str, Path]
) -> None:
    import datasets

    from tests.search.tasks.rows import image, pope, scienceqa

    named = [{**pope(number), "image_source": f"COCO_{number // 6}"} for number in range(60)]
    unnamed = [{**scienceqa(number), "image": image(number // 6)} for number in range(60)]
    shown = {}
    for name, made in (("pope", named), ("scienceqa_img", unnamed)):
        folder = tmp_path / name
        folder.mkdir()
        datasets.Dataset.from_list(made).to_parquet(folder / "rows.parquet")
        evaluator = make(name)
        evaluator._settings.data[name] = folder
        for split in SPLITS:
            for each in evaluator._chosen_in(split):
                shown.setdefault((name, each.sample.rows[0] // 6), set()).add(split)
    assert len(shown) == 20
    assert all(len(splits) == 1 for splits in shown.values())


def test_questions_without_an_image_do_not_count_as_questions_on_one_image(
    make: Make, tmp_path: Path
) -> None:
    import datasets

    from tests.search.tasks.rows import scienceqa

    made = [scienceqa(number) for number in range(60)]
    for number, row in enumerate(made):
        row |= {"hint": f"w8 w{number}", **({"image": None} if number % 2 else {})}
    datasets.Dataset.from_list(made).to_parquet(tmp_path / "rows.parquet")
    evaluator = make("scienceqa_img")
    evaluator._settings.data["scienceqa_img"] = tmp_path
    keys = [key for split in SPLITS for key in evaluator.samples(split)]
    assert len(keys) == len({key.image for key in keys}) == 44
    shared = {
        split: sum(each.sample.rows[0] % 2 for each in evaluator._chosen_in(split))
        for split in SPLITS
    }
    assert all(shared.values())
    scores = evaluator.score(published("visiondrop", 8, evaluator.shape), "search", range(24))
    assert set(scores) == {0.0, 1.0}


@pytest.mark.parametrize(("count", "images"), [(2, 2), (12, 1)])
def test_a_task_with_too_little_for_three_splits_is_named(
    count: int, images: int, make: Make, tmp_path: Path
) -> None:
    import datasets

    made = [{**MAKERS["pope"](row), "image_source": f"i{row % images}"} for row in range(count)]
    datasets.Dataset.from_list(made).to_parquet(tmp_path / "rows.parquet")
    evaluator = make("gqa", "pope")
    evaluator._settings.data["pope"] = tmp_path
    with pytest.raises(DataError, match=r"task pope: its samples are .*cannot be divided into 3"):
        evaluator.samples("search")
