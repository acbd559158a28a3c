"""Can a name in a file become code, a path or a script in an emitted project?"""

from __future__ import annotations

import dataclasses
import re

import pytest

from arch_models.board import load_board
from arch_models.overlay import default_overlay
from hw.interface.configuration import EmissionError, configure
from hw.project.emit import emit
from tests.support.small_frames import board, lowered_frame, small_graph
from workloads.graph import Graph

OVERLAY = default_overlay()
HOSTILE = ['x"; std::system("true"); //', "a b", "", "x\\", "a\nb", "[exec true]", "$PATH", "é",
           "../x", "descriptors"]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_units_name_that_is_no_identifier_is_refused(name):
    """Readers refuse it too; whoever builds a program by hand meets this."""
    program = lowered_frame(OVERLAY).program
    units = (dataclasses.replace(program.units[0], name=name), *program.units[1:])
    with pytest.raises(EmissionError, match="unit"):
        configure(dataclasses.replace(program, units=units), OVERLAY)


@pytest.mark.parametrize("name", ["a\nb", 'x"', "a\\", "", "a//b"])
def test_a_channels_name_that_could_end_a_comment_is_refused(name):
    program = lowered_frame(OVERLAY).program
    channels = (dataclasses.replace(program.channels[0], name=name), *program.channels[1:])
    with pytest.raises(EmissionError, match="channel .* must be letters"):
        configure(dataclasses.replace(program, channels=channels), OVERLAY)


def renamed(graph: Graph, old: str, new: str) -> Graph:
    """The graph with another name for one of its tensors."""
    def name(text: str) -> str:
        return new if text == old else text

    layers = tuple(dataclasses.replace(layer, output=name(layer.output),
                                       inputs=tuple(map(name, layer.inputs)))
                   for layer in graph.layers)
    tensors = {name(key): dataclasses.replace(spec, name=name(key))
               for key, spec in graph.tensors.items()}
    return dataclasses.replace(graph, layers=layers, tensors=tensors,
                               inputs=tuple(map(name, graph.inputs)),
                               outputs=tuple(map(name, graph.outputs)))


@pytest.mark.parametrize("name", ["../../outside", "/tmp/outside", "a b", "a\nb", ".hidden"])
def test_a_tensors_name_that_is_a_path_writes_nothing(tmp_path, name):
    graph = renamed(small_graph(), "picture", name)
    lowered = lowered_frame(OVERLAY, graph=graph)
    with pytest.raises(EmissionError, match=re.escape("tensor: ")):
        emit(lowered, graph, OVERLAY, board(), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_networks_name_that_is_a_path_is_refused(tmp_path):
    graph = dataclasses.replace(small_graph(), name="<b>x</b>")
    with pytest.raises(EmissionError, match="graph: name"):
        emit(lowered_frame(OVERLAY), graph, OVERLAY, board(), tmp_path / "out")


@pytest.mark.parametrize("name", ["ultra96", "zcu104", "kria-kv260"])
def test_a_board_of_another_family_is_refused_by_name(tmp_path, name):
    with pytest.raises(EmissionError, match=f"board '{name}': its part .* is no Zynq-7000"):
        emit(lowered_frame(OVERLAY), small_graph(), OVERLAY, load_board(name), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
