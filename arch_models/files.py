"""Reads files that somebody else wrote: plain ones, of bounded size, decoded, every number finite.

It gives nothing a meaning; `fields.build` makes values of tables. Whatever is wrong is one
`FieldError` that names the file. No content can make it unpack more than `most` bytes.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import stat
import tomllib
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from arch_models.fields import FieldError, shortened

if TYPE_CHECKING:
    import numpy as np

T = TypeVar("T")
#: Bytes of a text (the largest that ships has 1.3 MB) and of arrays, unpacked.
MOST_TEXT, MOST_ARRAYS = 64 << 20, 1 << 30
MOST_ROWS, MOST_MEMBERS = 1_000_000, 4096
#: Kinds of array elements that hold numbers: truth values, integers, floats.
NUMBERS = "biuf"


def read_bytes(path: str | Path, most: int = MOST_TEXT) -> bytes:
    """The bytes of a plain file; a device, a pipe or a folder is refused, and more than `most`."""
    try:
        # Without O_NONBLOCK a pipe that nobody writes would never open.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            state = os.fstat(handle)
            if not stat.S_ISREG(state.st_mode):
                raise FieldError(f"{path}: cannot be read: must be a plain file")
            if state.st_size > most:
                raise FieldError(f"{path}: has {state.st_size} bytes, must have at most {most}")
            with os.fdopen(handle, "rb", closefd=False) as file:
                return file.read(most)
        finally:
            os.close(handle)
    except FileNotFoundError:
        raise FieldError(f"there is no file {str(path)!r}") from None
    except OSError as error:
        raise FieldError(f"{path}: cannot be read: {error.strerror}") from None


def read_text(path: str | Path, most: int = MOST_TEXT) -> str:
    """UTF-8 text, without a mark at its beginning."""
    try:
        return read_bytes(path, most).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FieldError(f"{path}: cannot be read: not UTF-8 text: {error.reason} at byte "
                         f"{error.start}") from None


def read_toml(path: str | Path) -> dict[str, Any]:
    """The tables of a TOML file."""
    return parse_toml(read_text(path), str(path))


def parse_toml(text: str, where: str) -> dict[str, Any]:
    """The tables of TOML text."""
    return _parsed(tomllib.loads, text, where, "TOML")


def read_json(path: str | Path) -> Any:
    """The value of a JSON file; NaN and Infinity, which JSON does not have, are refused."""
    return parse_json(read_text(path), str(path))


def parse_json(text: str, where: str) -> Any:
    """The value of JSON text."""
    def refuse(name: str) -> None:
        raise ValueError(f"{name} is no number")

    return _parsed(lambda given: json.loads(given, parse_constant=refuse), text, where, "JSON")


def _parsed(parse: Callable[[str], T], text: str, where: str, kind: str) -> T:
    try:
        return parse(text)
    except json.JSONDecodeError as error:
        raise FieldError(f"{where}: not {kind}: {error.msg} at line {error.lineno}, column "
                         f"{error.colno}; it may be cut short, write it again") from None
    except RecursionError:
        raise FieldError(f"{where}: not {kind}: nested too deeply") from None
    except ValueError as error:  # also of numbers with too many digits
        raise FieldError(f"{where}: not {kind}: {shortened(error, 200)}") from None


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a CSV file: its line, and its cells by column."""

    line: int
    cells: dict[str, str]

    def number(self, column: str, least: float = -math.inf, most: float = math.inf) -> float:
        """The finite number in a column; `FieldError` with the line if it is none."""
        return number(self.cells[column], f"line {self.line}: {column}", least, most)


def read_rows(path: str | Path, columns: Sequence[str]) -> tuple[Row, ...]:
    """The rows of a CSV file whose header holds `columns`, stripped cells; more columns may be.

    A row that is shorter or longer than its header is refused by its line.
    """
    reader = csv.reader(io.StringIO(read_text(path), newline=""))
    rows: list[Row] = []
    try:
        header = [name.strip() for name in next(reader, [])]
        for name in columns:
            if name not in header:
                raise FieldError(f"{path}: has no column {name!r}; it has "
                                 f"{shortened(', '.join(header), 300) or 'none'}")
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(header):
                raise FieldError(f"{path}: line {reader.line_num} has {len(cells)} cells, must "
                                 f"have {len(header)}")
            if len(rows) == MOST_ROWS:
                raise FieldError(f"{path}: must have at most {MOST_ROWS} rows")
            rows.append(Row(reader.line_num, dict(zip(
                header, (cell.strip() for cell in cells), strict=True))))
    except csv.Error as error:
        raise FieldError(f"{path}: line {reader.line_num}: not CSV: {error}") from None
    return tuple(rows)


def number(text: str, where: str, least: float = -math.inf, most: float = math.inf) -> float:
    """The finite number that a text says, within bounds; `FieldError` if it is none."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise FieldError(f"{where} is {shortened(text)!r}, must be a finite number")
    if not least <= value <= most:
        raise FieldError(f"{where} is {shortened(text)}, must lie between {least:g} and {most:g}; "
                         f"nearest {min(max(value, least), most):g}")
    return value


def read_arrays(path: str | Path, most: int = MOST_ARRAYS) -> dict[str, np.ndarray]:
    """The arrays of an .npz file by name: numbers only, no pickles.

    What the archive and each array say of their size is added up before anything is unpacked.
    """
    raw = read_bytes(path, most)
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            members = archive.infolist()
            total = sum(item.file_size for item in members)
            if total > most or len(members) > MOST_MEMBERS:
                raise FieldError(f"{path}: unfolds to {total} bytes in {len(members)} arrays, must "
                                 f"be at most {most} in {MOST_MEMBERS}")
            return {item.filename.removesuffix(".npy"): _array(archive, item)
                    for item in members}
    except FieldError:
        raise
    except Exception as error:  # zip, compression and header each raise several kinds
        raise FieldError(f"{path}: cannot be read as arrays: "
                         f"{shortened(error, 200) or type(error).__name__}") from None


def _array(archive: zipfile.ZipFile, item: zipfile.ZipInfo) -> np.ndarray:
    import numpy as np  # not before: the command line reads TOML before it needs arrays

    with archive.open(item) as file:
        version = np.lib.format.read_magic(file)
        read = {(1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0}.get(version)
        if read is None:
            raise ValueError(f"{shortened(item.filename)}: version {version} of the format")
        shape, by_column, kind = read(file)
        if kind.kind not in NUMBERS:
            raise ValueError(f"{shortened(item.filename)} holds {kind}, must hold numbers")
        size = math.prod(shape) * kind.itemsize
        content = file.read(size + 1) if 0 <= size <= item.file_size else b""
        if len(content) != size:
            raise ValueError(f"{shortened(item.filename)} is said to have {size} bytes, and has "
                             "not")
        flat = np.frombuffer(content, kind)
        return flat.reshape(shape[::-1]).T if by_column else flat.reshape(shape)

