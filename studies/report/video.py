"""Writes pictures that follow one another: as a video file, or as numbered PNG files in a folder.

It draws and measures nothing. Videos need the extra `video` (PyAV); PNG files need no extra.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from studies.plain.errors import UserError
from studies.plain.files import check_writable, output_folder, write_whole

#: File endings that name a video, with the container that PyAV writes.
VIDEOS = {".mp4": "mp4", ".mkv": "matroska"}
#: Of x264: 0 loses nothing, 51 nearly everything; 12 can't be told from the original by eye.
CONSTANT_RATE_FACTOR = "12"


def is_video(path: Path) -> bool:
    """Whether the name means a video; `UserError` for an ending that means neither.

    A name without an ending, or a folder that is there, means a folder of PNG files.
    """
    ending = path.suffix.lower()
    if path.is_dir() or not ending:
        return False
    if ending not in VIDEOS:
        raise UserError(f"--out is {str(path)!r}; name a video ({' or '.join(VIDEOS)}), for "
                        f"example {str(path.with_suffix('.mp4'))!r}, or a folder for PNG files, "
                        f"for example {str(path.with_suffix(''))!r}.")
    return True


def check_target(path: Path, count: int) -> None:
    """Refuse, before any work is done, what `write` could not do in the end.

    That is: a file that may not be written, an ending that means nothing, a missing extra
    (`ModuleNotFoundError`), and a folder with numbered pictures beyond the `count` to come.
    """
    if is_video(path):
        import av  # noqa: F401

        check_writable(path)
        return
    names = {frame_name(number) for number in range(count)}
    older = sorted({item.name for item in output_folder(path).glob("frame_*.png")} - names)
    if older:
        raise UserError(f"the folder {str(path)!r} holds {older[0]!r} and would mix two clips; "
                        "empty it, or name another.")


def frame_name(number: int) -> str:
    """The file of one picture in a folder."""
    return f"frame_{number:04d}.png"


def write(path: Path, pictures: Sequence[np.ndarray], rate: int) -> None:
    """Write uint8 pictures (rows, columns, 3) of equal, even size; `rate`: pictures a second.

    A video file is written whole or not at all; of PNG files each is.
    """
    if is_video(path):
        packed = encoded(pictures, rate, VIDEOS[path.suffix.lower()])
        write_whole(path, lambda file: file.write(packed))
        return
    for number, picture in enumerate(pictures):
        write_whole(path / frame_name(number), partial(Image.fromarray(picture).save, format="PNG"))


def encoded(pictures: Sequence[np.ndarray], rate: int, container: str) -> bytes:
    """The bytes of an H.264 video; colours are stored at half the rows and columns."""
    import av

    packed = io.BytesIO()
    rows, columns = pictures[0].shape[:2]
    with av.open(packed, "w", format=container) as file:
        stream = file.add_stream("libx264", rate=Fraction(rate),
                                 options={"crf": CONSTANT_RATE_FACTOR})
        stream.width, stream.height, stream.pix_fmt = columns, rows, "yuv420p"
        for picture in pictures:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return packed.getvalue()
