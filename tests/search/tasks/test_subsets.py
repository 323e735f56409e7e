"""Subsets against what stratified, disjoint and seeded mean."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pruners.errors import DataError
from search.tasks.subsets import disjoint_subsets

NAMES = ("search", "confirm", "report")


@given(
    strata=st.lists(st.sampled_from("abcd"), min_size=6, max_size=60),
    sizes=st.tuples(*[st.integers(1, 30)] * 3),
    seed=st.integers(0, 100),
    balanced=st.booleans(),
)
def test_subsets_are_disjoint_and_no_larger_than_asked(
    strata: list[str], sizes: tuple[int, int, int], seed: int, balanced: bool
) -> None:
    identifiers = [f"s{number}" for number in range(len(strata))]
    wanted = dict(zip(NAMES, sizes, strict=True))
    try:
        subsets = disjoint_subsets(identifiers, strata, wanted, seed, balanced=balanced)
    except DataError:
        assert balanced
        assert min(Counter(strata).values()) * len(set(strata)) < 3
        return
    drawn = [index for name in NAMES for index in subsets[name]]
    assert len(drawn) == len(set(drawn))
    assert all(1 <= len(subsets[name]) <= wanted[name] for name in NAMES)
    if not balanced and sum(sizes) <= len(strata):
        assert [len(subsets[name]) for name in NAMES] == list(sizes)


def test_strata_keep_their_shares() -> None:
    strata = ["common"] * 60 + ["rare"] * 30 + ["rarest"] * 10
    identifiers = [f"{number:03}" for number in range(100)]
    sizes = {"search": 40, "confirm": 20, "report": 20}
    subsets = disjoint_subsets(identifiers, strata, sizes, seed=3)
    counts = {name: Counter(strata[index] for index in each) for name, each in subsets.items()}
    assert counts["search"] == {"common": 24, "rare": 12, "rarest": 4}
    assert counts["confirm"] == {"common": 12, "rare": 6, "rarest": 2}


def test_balanced_strata_have_equal_shares() -> None:
    strata = ["a"] * 50 + ["b"] * 12
    identifiers = [f"{number:03}" for number in range(62)]
    sizes = {"search": 10, "confirm": 5, "report": 6}
    subsets = disjoint_subsets(identifiers, strata, sizes, seed=0, balanced=True)
    for each in subsets.values():
        assert len(set(Counter(strata[index] for index in each).values())) == 1


def test_the_draw_follows_identifiers_and_seed_and_not_the_order_of_rows() -> None:
    identifiers = [f"{number:03}" for number in range(50)]
    strata = ["even" if number % 2 == 0 else "odd" for number in range(50)]
    sizes = {"search": 10, "report": 10}
    first = disjoint_subsets(identifiers, strata, sizes, seed=1)
    turned = disjoint_subsets(identifiers[::-1], strata[::-1], sizes, seed=1)
    for name in sizes:
        names = {identifiers[index] for index in first[name]}
        assert names == {identifiers[::-1][index] for index in turned[name]}
    assert first != disjoint_subsets(identifiers, strata, sizes, seed=2)
    larger = disjoint_subsets(identifiers, strata, {"search": 10, "report": 20}, seed=1)
    assert larger["search"] == first["search"]


@given(
    images=st.lists(st.integers(0, 12), min_size=10, max_size=80),
    sizes=st.tuples(*[st.integers(1, 30)] * 3),
    seed=st.integers(0, 100),
)
def test_no_image_is_in_two_subsets(
    images: list[int], sizes: tuple[int, int, int], seed: int
) -> None:
    identifiers = [f"s{number:02}" for number in range(len(images))]
    names = [str(image) for image in images]
    wanted = dict(zip(NAMES, sizes, strict=True))
    strata = ["a" if number % 3 else "b" for number in range(len(images))]
    if len(set(names)) < 3:
        with pytest.raises(DataError, match="different images, which cannot be divided"):
            disjoint_subsets(identifiers, strata, wanted, seed, images=names)
        return
    subsets = disjoint_subsets(identifiers, strata, wanted, seed, images=names)
    assert all(1 <= len(subsets[name]) <= wanted[name] for name in NAMES)
    shown = [{names[index] for index in subsets[name]} for name in NAMES]
    assert sum(map(len, shown)) == len(set.union(*shown))


def test_subsets_get_all_they_ask_for_where_images_have_many_samples() -> None:
    # As GQA's testdev: 398 images with about 32 questions each.
    images = [str(number % 398) for number in range(12_578)]
    identifiers = [f"{number:05}" for number in range(12_578)]
    strata = ["query" if number % 2 else "verify" for number in range(12_578)]
    sizes = {"search": 200, "confirm": 100, "report": 500}
    subsets = disjoint_subsets(identifiers, strata, sizes, seed=0, images=images)
    assert {name: len(each) for name, each in subsets.items()} == sizes
    assert len({images[index] for index in subsets["search"]}) > 80


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(DataError, match="are 2, which cannot be divided into 3"):
        disjoint_subsets(["a", "b"], ["", ""], dict.fromkeys(NAMES, 1), seed=0)
