"""Reads designs to start a search from: an earlier search's front, or a design file.

It evaluates nothing: figures of an earlier study may be of another network, board or program.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from studies.evaluation.inputs import design
from studies.plain.errors import UserError
from studies.plain.files import read_json
from studies.search.space import Choice, Space
from studies.search.space_overlays import nearest_choice


def earlier_designs(paths: Sequence[Path], space: Space) -> list[Choice]:
    """The designs of all files, each once, moved to the nearest ones of the space.

    A `.toml` file is one design. Any other file is what `cosim explore` writes (explore.json): the
    designs of its front, in the order in which they were tried. `UserError` for anything else.
    """
    found: list[Choice] = []
    for path in paths:
        near = [nearest_choice(design(str(path)), space)] if path.suffix == ".toml" else \
            [space.nearest(choice) for choice in _front(path)]
        found += [choice for place, choice in enumerate(near)
                  if choice not in found and choice not in near[:place]]
    return found


def _front(path: Path) -> list[Choice]:
    document = read_json(path)
    try:
        choices = [document["designs"][index]["choice"] for index in document["front"]]
    except (KeyError, IndexError, TypeError):
        raise UserError(f"{str(path)!r} holds no search with its front; give the explore.json of "
                        "`cosim explore`, or a design as .toml.") from None
    for choice in choices:
        if not isinstance(choice, dict) or not all(isinstance(value, bool | int | str)
                                                   for value in choice.values()):
            raise UserError(f"{str(path)!r}: {choice!r}, must be a design: axes with values.")
    return choices
