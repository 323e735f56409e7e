"""Documents that were damaged: values replaced, removed, added, and bytes that are no JSON."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Sequence
from typing import Any

from hypothesis import strategies as st

HOSTILE: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 0.5, -0.0, 1.0, 3.7, 1e-300, 1e308,
    float("nan"), float("inf"), float("-inf"),
    2**31, 2**53 + 1, 2**63, 10**18, 10**400, -(10**18),
    "", "0", "nan", "1e999", "../../etc/passwd", "/etc/passwd", "~/.ssh", "..", "a\x00b", "\ud800",
    "x" * 10_000, "{}", "__class__", "$(touch x)", "‮", "C:\\windows",
    [], {}, [[]], [None], {"kind": "none"}, [1] * 2000,
)  # fmt: skip
"""Values that readers forget: not numbers, too large, empty, of another type, leading elsewhere."""

LEAVES = st.one_of(
    st.sampled_from(HOSTILE).map(copy.deepcopy),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.booleans(),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=4,
)


@st.composite
def damaged(draw: st.DrawFn, documents: Sequence[Any]) -> Any:
    """One of the documents with up to three damages; without any it is as it was."""
    document = copy.deepcopy(documents[draw(st.integers(0, len(documents) - 1))])
    for _ in range(draw(st.sampled_from((0, 1, 1, 1, 2, 3)))):
        places = list(_places(document))
        if not places:
            return draw(VALUES)
        parent, key = places[draw(st.integers(0, len(places) - 1))]
        other_parent, other_key = places[draw(st.integers(0, len(places) - 1))]
        match draw(st.sampled_from(("replace", "replace", "delete", "add", "swap", "repeat"))):
            case "replace":
                parent[key] = draw(VALUES)
            case "delete":
                del parent[key]
            case "add" if isinstance(parent, dict):
                # Also under names that stand elsewhere, which a reader may take for others.
                name = str(other_key) if draw(st.booleans()) else draw(st.text(max_size=12))
                parent[name] = draw(VALUES)
            case "swap":
                parent[key] = copy.deepcopy(other_parent[other_key])
            case "repeat" if isinstance(parent, list):
                parent.insert(key, copy.deepcopy(parent[key]))
    return document


@st.composite
def damaged_bytes(draw: st.DrawFn, contents: Sequence[bytes]) -> bytes:
    """One of the contents cut, overwritten, extended, or replaced by bytes of any kind."""
    content = contents[draw(st.integers(0, len(contents) - 1))]
    at = draw(st.integers(0, len(content)))
    piece = draw(st.binary(max_size=8) | st.sampled_from(_PIECES))
    match draw(st.sampled_from(("cut", "overwrite", "insert", "erase", "move", "other"))):
        case "cut":
            return content[:at]
        case "overwrite":
            return content[:at] + piece + content[at + len(piece) :]
        case "insert":
            return content[:at] + piece + content[at:]
        case "erase":
            size = draw(st.sampled_from((1, 16, 512, 4096)))
            return content[:at] + bytes(size) + content[at + size :]
        case "move":
            start = draw(st.integers(0, len(content)))
            part = content[start : start + draw(st.sampled_from((4, 100, 4096)))]
            return content[:at] + part + content[at + len(part) :]
        case _:
            return piece * draw(st.sampled_from((0, 1, 2, 100)))


def as_json(document: Any) -> bytes:
    """The document as Python writes it: NaN and numbers without end too."""
    return json.dumps(document).encode()


_PIECES = (
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b"9" * 5000,
    b"1e999999999",
    b"NaN",
    b"-Infinity",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\x00",
    b'"\\ud800"',
    b'"' * 3,
    b"}",
    b"\x80\x04\x95",
    b"PK\x03\x04",
    b"SQLite format 3\x00",
)


def _places(document: Any) -> Iterator[tuple[Any, Any]]:
    """Every value of a document, as where it hangs and under which key."""
    if isinstance(document, dict):
        keys: Any = list(document)
    elif isinstance(document, list):
        keys = range(len(document))
    else:
        return
    for key in keys:
        yield document, key
        yield from _places(document[key])
