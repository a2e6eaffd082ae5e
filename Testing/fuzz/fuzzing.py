"""What every fuzz test demands, and ways to damage a file.

`make test` tries the same few examples each time; `make fuzz` tries many, other ones each time
(``CHANGEMAP_FUZZ_EXAMPLES`` says how many a test).
"""

from __future__ import annotations

import copy
import json
import os
import signal
import struct
import sys
import tempfile
import tracemalloc
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from ChangeMapJointLib.core.errors import InputError

EXAMPLES = int(os.environ.get("CHANGEMAP_FUZZ_EXAMPLES") or 0)
HANG_S = 60  # nothing here takes a second; only so that a loop without end is found
MAX_BYTES = 2**26  # that may be in memory for files of some kB; their headers may claim anything
MAX_MESSAGE = 3000
MOVING = ("os.rename", "os.link", "os.symlink", "os.truncate", "os.chmod")
REMOVING = ("shutil.rmtree", "os.mkdir", "os.remove", "os.rmdir")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

NASTY_NUMBERS = ("0", "-1", "1", "2", "7", "nan", "inf", "-inf", "1e308", "1e-308", "1e400", "-0.0", "1e20")
NASTY_NUMBERS += ("2147483648", "4294967296", "9" * 19, "9" * 400, "0x10", "1_000", "١٢")
NASTY_TEXTS = ("", " ", "none", "null", "true", "LIST", "LOCAL", "%d", "%09d.raw 0 999999999 1", "%s%n 1 2", "../x")
NASTY_TEXTS += (
    "/dev/zero",
    "/etc/hostname",
    "x" * 300,
    "a\0b",
    "\x1b[31m",
    "é",
    "\u2028",
    "(",
    "(1,2",
    "(,,)",
    "\\",
    '"',
)
NASTY_TEXTS += ("1 1 1", "1 2", "0 0 0", "100000 100000 100000", "(1,0,0) (0,1,0) (0,0,1)", "(nan,0,0) (0,1,0) (0,0,1)")
NASTY = (*NASTY_NUMBERS, *NASTY_TEXTS)


class Hang(BaseException):
    """The program did not come back."""


def fuzz(examples: int) -> settings:
    """So many examples in ``make test``, always the same; as many others as asked for in ``make fuzz``."""
    return settings(
        derandomize=not EXAMPLES,
        max_examples=EXAMPLES or examples,
        deadline=None,
        database=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )


def answer(call: Callable[[], Any], folder: Path) -> Any:
    """What ``call`` gives; None when it raises an InputError of one line. Anything else fails the test.

    Args:
        call: reads something in ``folder``.
        folder: where it may write.
    """
    with _bounded(folder), warnings.catch_warnings():
        warnings.simplefilter("error")  # it would be printed beside the answer
        try:
            return call()
        except InputError as error:
            text = str(error)
    assert text.isprintable(), f"not one printable line: {text!r}"
    assert len(text) < MAX_MESSAGE, f"{len(text)} characters: {text[:400]!r}"
    assert "out of memory" not in text, text
    return None


@contextmanager
def _bounded(folder: Path) -> Iterator[None]:
    """Time and memory are bounded, and nothing is written elsewhere."""
    _Watch.written, _Watch.active = [], True
    tracemalloc.start()
    before = signal.signal(signal.SIGALRM, _hang) if hasattr(signal, "SIGALRM") else None
    if before is not None:
        signal.alarm(HANG_S)
    try:
        yield
    finally:
        if before is not None:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        _Watch.active = False
    assert peak < MAX_BYTES, f"{peak / 2**20:.0f} MiB in memory"
    temporary = [os.path.realpath(Path(tempfile.gettempdir(), name)) for name in ("changemap-", "torchinductor_")]
    allowed = (str(folder.resolve()), *temporary)
    outside = [path for path in _Watch.written if not os.path.realpath(path).startswith(allowed)]
    assert not outside, f"wrote to {outside}"


def _hang(*_: object) -> None:
    raise Hang(f"more than {HANG_S} s")


class _Watch:
    """What Python opens for writing, makes, moves or removes."""

    active = False
    written: ClassVar[list[str]] = []


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if not _Watch.active:
        return
    if event == "open":
        path, mode, flags = arguments
        writes = any(letter in mode for letter in "wax+") if isinstance(mode, str) else bool(flags & WRITING)
        paths = [path] if writes else []
    elif event in MOVING:
        paths = list(arguments[:2])
    elif event in REMOVING and arguments[-1] in (-1, None):
        paths = [arguments[0]]  # else inside a folder that rmtree was asked to remove
    else:
        return
    _Watch.written += [os.fsdecode(path) for path in paths if isinstance(path, (str, bytes, os.PathLike))]


tempfile.gettempdir()  # tries its folder once
sys.addaudithook(_audit)


# -- ways to damage something ---------------------------------------------------------------
@st.composite
def damaged(draw: st.DrawFn, content: bytes, *, within: int | None = None) -> bytes:
    """``content`` with up to four changes; only its first ``within`` bytes are changed, if given."""
    data = bytearray(content)
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, max(min(within or len(data), len(data)) - 1, 0)))
        kind = draw(st.sampled_from(("byte", "number", "number", "cut", "insert", "remove", "copy")))
        if kind == "byte":
            data[place : place + 1] = bytes([draw(st.integers(0, 255))])
        elif kind == "number":
            number = draw(_packed_number())
            data[place : place + len(number)] = number
        elif kind == "cut":
            del data[place:]
        elif kind == "insert":
            data[place:place] = draw(st.binary(max_size=12))
        elif kind == "remove":
            del data[place : place + draw(st.integers(1, 40))]
        else:
            data[place:place] = data[place : place + draw(st.integers(1, 200))]
    return bytes(data)


@st.composite
def _packed_number(draw: st.DrawFn) -> bytes:
    order = draw(st.sampled_from("<>"))
    code = draw(st.sampled_from("hiqfd"))
    if code in "fd":
        values = st.sampled_from((0.0, -1.0, 1.0, float("nan"), float("inf"), 1e38, 1e-38, 1e9))
    else:
        bits = 8 * struct.calcsize(code)
        values = st.sampled_from((0, 1, -1, 2, 3, 4, 7, 16, 512, 2 ** (bits - 1) - 1, -(2 ** (bits - 1))))
        values |= st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return struct.pack(order + code, draw(values))


@st.composite
def damaged_lines(draw: st.DrawFn, lines: Sequence[str], separator: str) -> list[str]:
    """Lines ``name separator value`` of which up to four are changed, doubled, exchanged or left out."""
    found = list(lines)
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, len(found) - 1)) if found else 0
        kind = draw(st.sampled_from(("value", "value", "value", "part", "remove", "double", "swap", "text")))
        name, _, value = (found[place] if found else "").partition(separator)
        if kind == "value":
            found[place : place + 1] = [f"{name}{separator} {draw(st.sampled_from(NASTY))}"]
        elif kind == "part":
            words = value.split() or [""]
            words[draw(st.integers(0, len(words) - 1))] = draw(st.sampled_from(NASTY))
            found[place : place + 1] = [f"{name}{separator} {' '.join(words)}"]
        elif kind == "remove":
            del found[place : place + 1]
        elif kind == "double":
            found[place:place] = found[place : place + 1]
        elif kind == "swap" and found:
            other = draw(st.integers(0, len(found) - 1))
            found[place], found[other] = found[other], found[place]
        else:
            found.insert(place, draw(st.text(max_size=20)))
    return found


JSON_LEAVES = st.sampled_from(
    (None, True, False, 0, -1, 1, 3, 10**30, 0.5, -1e308, float("nan"), float("inf"), "", "x")
)
JSON_LEAVES |= st.sampled_from(
    ("auto", "\0", "é" * 100, "../../x", [], {}, [0], [[]], {"": None}, [1, 2, 3], [1e9] * 3)
)
JSON_LEAVES |= st.integers(-10, 10) | st.floats()


@st.composite
def damaged_json(draw: st.DrawFn, values: Any) -> Any:
    """JSON ``values`` in which up to three entries are another thing, or missing, or new."""
    found = json.loads(json.dumps(values))
    for _ in range(draw(st.integers(0, 3))):
        parent: Any = None
        key: Any = None
        node = found
        while isinstance(node, (dict, list)) and node and (parent is None or draw(st.integers(0, 3))):
            parent = node
            key = draw(st.sampled_from(sorted(node))) if isinstance(node, dict) else draw(st.integers(0, len(node) - 1))
            node = node[key]
        leaf = copy.deepcopy(draw(JSON_LEAVES))  # the next change may be inside of it
        if parent is None:
            return leaf
        action = draw(st.integers(0, 4))
        if action == 0:
            del parent[key]
        elif action == 1 and isinstance(parent, dict):
            parent[draw(st.text(max_size=5))] = leaf
        else:
            parent[key] = leaf
    return found


def json_text(values: Any) -> bytes:
    """As a file has it."""
    return json.dumps(values).encode()


def empty(folder: Path) -> Path:
    """``folder`` without files, for the next example."""
    folder.mkdir(exist_ok=True)
    for path in sorted(folder.rglob("*"), reverse=True):
        with suppress(OSError):
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    return folder
