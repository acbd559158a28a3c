"""Damages files as disks, editors and enemies do, the same way for the same seed."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

#: What stands for a number, a name or a table, and is none that was meant.
VALUES = (b"nan", b"-inf", b"inf", b"NaN", b"Infinity", b"-1", b"0", b"1e400", b"-0.0", b"1e-320",
          b"1000000007", b"9223372036854775808", b"1" * 25, b"1" * 5000, b"0.5", b"true", b"null",
          b"[]", b"{}", b'""', b'"x"', b"'", b'"', b'"../../x"', b'"$(id)"', b'"[/x]"',
          b'"\\u0000"', b"\x1b[2J", b"\xff", b"\xf0\x9f\x98\x80", b"\x00", b"")
#: What a file may hold by its form, so that it is read on to where meanings are checked.
LIKELY = (b"0", b"1", b"2", b"3", b"7", b"64", b"100", b"4096", b"65537", b"1000003",
          b"2147483647", b"4294967296", b"4611686018427387904", b"0.001", b"1.5", b"1e-9", b"1e12")
NUMBER = re.compile(rb"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")
STRING = re.compile(rb'"[^"\n]*"')


def damaged(content: bytes, draw: random.Random) -> bytes:
    """The content with one to three things wrong; half the time its form is kept."""
    if draw.random() < 0.5:
        for _ in range(draw.choice((1, 1, 2))):
            content = draw.choice((_likely, _likely, _other_text))(content, draw)
        return content
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        content = draw.choice(WAYS)(content, draw)
    return content


def _replaced(pattern: re.Pattern[bytes], content: bytes, draw: random.Random,
              values: Sequence[bytes] = VALUES) -> bytes:
    """One match becomes another value. Only the first 100,000 bytes are looked at."""
    found = [match.span() for match in pattern.finditer(content[:100_000])]
    if not found:
        return _flipped(content, draw)
    start, end = draw.choice(found)
    return content[:start] + draw.choice(values) + content[end:]


def _likely(content: bytes, draw: random.Random) -> bytes:
    return _replaced(NUMBER, content, draw, LIKELY)


def _other_text(content: bytes, draw: random.Random) -> bytes:
    """A text of the same file in another's place."""
    return _replaced(STRING, content, draw, STRING.findall(content) or VALUES)


def _number(content: bytes, draw: random.Random) -> bytes:
    return _replaced(NUMBER, content, draw)


def _string(content: bytes, draw: random.Random) -> bytes:
    return _replaced(STRING, content, draw)


def _flipped(content: bytes, draw: random.Random) -> bytes:
    if not content:
        return b"\x00"
    place = draw.randrange(len(content))
    return content[:place] + bytes([content[place] ^ 1 << draw.randrange(8)]) + content[place + 1:]


def _cut(content: bytes, draw: random.Random) -> bytes:
    return content[:draw.randrange(len(content) + 1)]


def _dropped(content: bytes, draw: random.Random) -> bytes:
    start = draw.randrange(len(content) + 1)
    return content[:start] + content[start + draw.choice((1, 7, 100, 5000)):]


def _inserted(content: bytes, draw: random.Random) -> bytes:
    place = draw.randrange(len(content) + 1)
    what = draw.choice((draw.randbytes(draw.randrange(1, 40)), b"[" * 5000, b"{" * 3000,
                        b"\n", b",", draw.choice(VALUES)))
    return content[:place] + what + content[place:]


def _line(content: bytes, draw: random.Random) -> bytes:
    """A line is lost, doubled or moved."""
    lines = content.split(b"\n")
    one, other = draw.randrange(len(lines)), draw.randrange(len(lines))
    match draw.randrange(3):
        case 0:
            del lines[one]
        case 1:
            lines.insert(other, lines[one])
        case _:
            lines[one], lines[other] = lines[other], lines[one]
    return b"\n".join(lines)


WAYS = (_number, _number, _number, _string, _string, _flipped, _cut, _dropped, _inserted, _line)
