"""Is the frame that a network ships real, and noise called noise?"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from workloads.agc.graph import frame_bytes
from workloads.frames import AGC_FRAME, GIVEN, NOISE, whole_frame
from workloads.graph import GraphError, Phase
from workloads.library import load
from workloads.reference import execute
from workloads.training.metrics import psnr_db
from workloads.training.pictures.clips import quarter


@pytest.mark.parametrize("name", ["agc-w16", "agc-w32"])
def test_a_trained_decoder_moves_the_face_towards_the_driving_frame(name):
    """Nearer to it than the source is (18.6 and 17.6 dB against 17.4): what a decoder is for."""
    graph = load(name)
    whole, frame = whole_frame(graph)
    assert whole is graph and frame.about != NOISE
    picture = frame_bytes(execute(graph, frame.inputs, [Phase.FRAME])["picture"])
    with np.load(AGC_FRAME) as real:
        source, driving = real["source"], real["driving_quarter"]
    decoded, repeated = psnr_db(quarter(picture), driving), psnr_db(quarter(source), driving)
    assert decoded > repeated


def test_a_network_without_training_gets_noise_and_says_so():
    graph = load("agc-w24")
    assert whole_frame(graph)[1].about == NOISE
    assert not whole_frame(graph)[1].inputs


def test_inputs_that_are_given_are_taken():
    graph = load("agc-w24")
    given = {"small": np.zeros(graph.tensors["small"].shape, np.int8)}
    _, frame = whole_frame(graph, given)
    assert frame.inputs == given and frame.about == GIVEN


def test_a_name_alone_makes_no_decoder():
    """A network that happens to be called like a shipped one."""
    graph = load("agc-w16")
    other = dataclasses.replace(graph, inputs=("source",))
    assert whole_frame(other)[1].about == NOISE


def test_a_sampler_that_nobody_tied_is_refused():
    with pytest.raises(GraphError, match="sampler loop is unknown"):
        whole_frame(dataclasses.replace(load("agc-w16"), steps=4))
