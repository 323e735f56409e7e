from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from search.tasks.disk_cache import DiskCache, cache_key


def test_what_is_put_is_found_by_another_process_with_the_same_key(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(3, 4), "b": torch.arange(5)}
    key = cache_key(model="m", sample="s")
    DiskCache(tmp_path, 10**6).put(key, tensors)
    found = DiskCache(tmp_path, 10**6).get(key)
    assert found is not None
    assert set(found) == set(tensors)
    assert all(torch.equal(found[name], value) for name, value in tensors.items())


def test_every_part_of_a_key_counts() -> None:
    parts = {"model": "m", "processor": "p", "dtype": "d", "schedule": "s", "sample": "1"}
    keys = {cache_key(**parts)} | {
        cache_key(**{**parts, name: value + "'"}) for name, value in parts.items()
    }
    assert len(keys) == len(parts) + 1
    assert cache_key(a="1", b="23") != cache_key(a="12", b="3")


def test_the_least_recently_used_go_when_the_bound_is_reached(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, 50_000)
    keys = [cache_key(sample=str(number)) for number in range(20)]
    for number, key in enumerate(keys):
        cache.put(key, {"values": torch.zeros(1000)})  # 4 kB
        path = next(tmp_path.rglob(f"{key}.safetensors"), None)
        if path is not None:
            os.utime(path, (number, number))
        cache.get(keys[0])  # in use all the time
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.safetensors")) <= 50_000
    assert cache.get(keys[0]) is not None
    assert cache.get(keys[-1]) is not None
    assert cache.get(keys[1]) is None


def test_a_file_of_another_user_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError  # what the system says to whoever neither owns nor may write a file

    cache, key = DiskCache(tmp_path, 10**6), cache_key(sample="s")
    cache.put(key, {"values": torch.ones(3)})
    monkeypatch.setattr(os, "utime", refuse)
    assert cache.get(key) is not None


def test_a_damaged_file_is_a_miss_and_is_replaced(tmp_path: Path) -> None:
    cache, key = DiskCache(tmp_path, 10**6), cache_key(sample="s")
    cache.put(key, {"values": torch.ones(3)})
    next(tmp_path.rglob("*.safetensors")).write_bytes(b"half a fi")
    assert cache.get(key) is None
    cache.put(key, {"values": torch.ones(3)})
    assert cache.get(key) is not None


def test_the_bound_holds_for_several_processes_and_after_one_was_killed(tmp_path: Path) -> None:
    (tmp_path / "ab").mkdir()
    left = tmp_path / "ab" / ".writing-1-ab.safetensors"  # half a file of a killed process
    left.write_bytes(bytes(30_000))
    os.utime(left, (0, 0))
    processes = [DiskCache(tmp_path, 50_000) for _ in range(4)]
    for number in range(60):
        tensors = {"values": torch.zeros(250)}  # 1 kB
        processes[number % 4].put(cache_key(sample=str(number)), tensors)
    kept = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert kept <= 50_000 * (1 + 4 / 20)
    assert not left.exists()


def test_what_cannot_be_deleted_stays_and_others_go(tmp_path: Path) -> None:
    stubborn = tmp_path / "ab" / "old.safetensors"
    stubborn.mkdir(parents=True)  # a folder cannot be deleted as a file, not even by root
    os.utime(stubborn, (0, 0))
    cache, keys = (
        DiskCache(tmp_path, 20_000),
        [cache_key(sample=str(number)) for number in range(9)],
    )
    for key in keys:
        cache.put(key, {"values": torch.zeros(1_000)})  # 4 kB
    kept = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert kept <= 20_000
    assert cache.get(keys[-1]) is not None
