"""One frame of a network with inputs that mean something, and what its tensors mean to a person.

It decodes nothing. For networks that ship trained a real frame is known; others get noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from workloads.agc.graph import INPUTS as AGC_INPUTS
from workloads.agc.graph import frame_inputs
from workloads.graph import Graph, Phase
from workloads.reference import execute
from workloads.unicorn.run import looped, starting_values

#: Source picture, keypoints (source, driving; by decoder) and a quarter of the driving picture, of
#: a real face that no training has seen: Grace Hopper (US Navy, public domain), moved. Written by
#: `cosim train frame`.
AGC_FRAME = Path(__file__).parent / "agc" / "frame.npz"
#: The shipped trained AGC decoders, with the entry of their keypoint detector in `AGC_FRAME`.
AGC_TRAINED = {"agc-w16": "w16", "agc-w16-multiplier": "w16", "agc-w32": "w32",
               "agc-t32b4": "t32b4", "agc-t32b4-4bit": "t32b4"}
NOISE = ("Inputs are seeded noise: outputs show that the arithmetic is right, and nothing to look "
         "at.")
PICTURE = "picture: red, green, blue from 0 to 1"
GIVEN = "Inputs are the first of those that were given for calibration."
_KEYPOINTS = "keypoints of the {} frame: x, then y, from -1 to 1 across it"
AGC_MEANINGS = {
    "picture": PICTURE, "source": PICTURE,
    "small": PICTURE + ", the source made smaller for the motion network",
    "features": "features of the source frame", "keypoints_source": _KEYPOINTS.format("source"),
    "keypoints_driving": _KEYPOINTS.format("driving")}
UNICORN_MEANINGS = {
    "picture": PICTURE, "latent": "latent; noise at the start", "latent_next": "latent when done",
    "step": "counter of sampler steps, 0 at the start", "position": "code of each position",
    "index_vector": "stands for one picture of the set"}


@dataclass(frozen=True)
class Frame:
    """Inputs of one frame by tensor, integers as in memory; those missing are drawn from `seed`.

    `about`: a sentence for a person. `meanings`: of tensors, as far as known; one that begins
    with "picture" can be looked at.
    """

    inputs: Mapping[str, np.ndarray] = field(default_factory=dict)
    seed: int = 0
    about: str = NOISE
    meanings: Mapping[str, str] = field(default_factory=dict)


def whole_frame(graph: Graph, given: Mapping[str, np.ndarray] | None = None
                ) -> tuple[Graph, Frame]:
    """The graph of one frame and its inputs: a real frame where one is known.

    `given`: integers of a user's own inputs, for a network without sampler steps; what a group of
    pictures keeps is worked out where its inputs are among them. One with them
    comes with its loop inside (it may have it already) and decodes its first picture;
    `GraphError` if nobody said how its steps are tied.
    """
    if graph.steps > 1 or graph.phase(Phase.STEP):
        inputs = starting_values(graph, 0)
        whole = graph if graph.carried else looped(graph)
        return whole, Frame(inputs, 0, "Inputs ask for the first picture of the set.",
                                    UNICORN_MEANINGS)
    if given is not None:
        group = {name for layer in graph.phase(Phase.GROUP) for name in layer.inputs}
        cached = (execute(graph, given, [Phase.GROUP])
                  if group.intersection(graph.inputs) <= given.keys() else {})
        return graph, Frame({**given, **cached}, 0, GIVEN)
    if graph.inputs != AGC_INPUTS:
        return graph, Frame()
    short = AGC_TRAINED.get(graph.name)
    with np.load(AGC_FRAME) as real:
        source = real["source"]
        points = real[short] if short else None
    if points is None or graph.tensors["source"].shape[1:] != source.shape[:2]:
        return graph, Frame(meanings=AGC_MEANINGS)
    given = frame_inputs(source, *points)
    inputs = {**given, **execute(graph, given, [Phase.GROUP])}
    return graph, Frame(inputs, 0, "Inputs are a real frame: a face that no training has seen, "
                        "moved by ten keypoints.", AGC_MEANINGS)


__all__ = ["AGC_MEANINGS", "Frame", "whole_frame"]
