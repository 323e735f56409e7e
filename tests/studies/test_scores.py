from __future__ import annotations

import sqlite3
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pruners.errors import StudyError
from studies.scores import SampleProbe, ScoreCache

KEYS = st.tuples(st.sampled_from("ab"), st.sampled_from(["search", "report"]))
PUTS = st.lists(
    st.tuples(KEYS, st.dictionaries(st.sampled_from("xyz"), st.floats(0, 1), max_size=3)),
    max_size=8,
)


@given(PUTS)
def test_a_cache_is_a_dictionary_that_survives_closing(puts):
    expected: dict[tuple[str, str], dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scores.db"
        for (schedule, split), scores in puts:
            with ScoreCache(path) as cache:
                cache.put(schedule, split, scores)
            expected.setdefault((schedule, split), {}).update(scores)
        with ScoreCache(path) as cache:
            for schedule in "ab":
                for split in ("search", "report"):
                    known = cache.get(schedule, split, ["x", "y", "z", "w"])
                    assert known == expected.get((schedule, split), {})
                    assert cache.get(schedule, split, []) == {}


def test_probes_are_kept_with_their_scores(tmp_path):
    path = tmp_path / "scores.db"
    probes = {"x": SampleProbe(1.0, 0.75, 0.5), "y": SampleProbe(0.0, 0.25, -0.125)}
    with ScoreCache(path) as cache:
        cache.put("a", "search", {"x": 0.0, "z": 1.0})
        cache.put_probes("a", "search", probes)
    with ScoreCache(path) as cache:
        assert cache.get_probes("a", "search", ["y", "x", "z"]) == probes
        assert cache.get("a", "search", ["x", "y", "z"]) == {"x": 1.0, "y": 0.0, "z": 1.0}
        assert cache.get_probes("a", "report", ["x"]) == {}
        assert cache.get_probes("b", "search", ["x"]) == {}


def test_a_file_without_probes_is_continued(tmp_path):
    path = tmp_path / "scores.db"
    with ScoreCache(path) as cache:
        cache.put("a", "search", {"x": 1.0})
    connection = sqlite3.connect(path)  # as versions without probes wrote it
    connection.execute("DROP TABLE probes")
    connection.close()
    with ScoreCache(path) as cache:
        assert cache.get("a", "search", ["x"]) == {"x": 1.0}
        assert cache.get_probes("a", "search", ["x"]) == {}
        cache.put_probes("a", "search", {"x": SampleProbe(1.0, 0.5, 0.5)})
        assert cache.get_probes("a", "search", ["x"]) == {"x": SampleProbe(1.0, 0.5, 0.5)}


def test_a_put_that_fails_leaves_nothing_behind(tmp_path):
    with ScoreCache(tmp_path / "scores.db") as cache:
        with pytest.raises(ValueError, match="could not convert"):
            cache.put("a", "search", {"x": 1.0, "y": "not a number"})
        assert cache.get("a", "search", ["x", "y"]) == {}


def test_a_file_that_is_no_cache_is_refused(tmp_path):
    path = tmp_path / "scores.db"
    path.write_bytes(b"holiday pictures" * 100)
    with pytest.raises(StudyError, match="cannot be used as the cache of scores"):
        ScoreCache(path)
    path.unlink()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE scores (name TEXT)")
    connection.close()
    with pytest.raises(StudyError, match="cannot be used as the cache of scores"):
        ScoreCache(path)
