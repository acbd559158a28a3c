"""Is every operator of the C++ host bit-exact to the reference?"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from arch_models.overlay import default_overlay
from cosim.lowering.packing import pack_tensor, unpack_tensor
from cosim.program.table import ARGUMENT_COUNT
from hw.csim.fabric import Fabric, SimulationError
from hw.interface.host_table import OPERATOR_NUMBERS, host_table
from tests.support.tiny_programs import Sheet, plain_place
from workloads import reference
from workloads.agc.config import AgcConfig
from workloads.agc.graph import agc_graph
from workloads.graph import Graph, GraphError, Layer, Operator, TensorSpec, Window
from workloads.unicorn.config import UnicornConfig
from workloads.unicorn.graph import unicorn_graph
from workloads.unicorn.run import looped

SMALL = AgcConfig(width=8, rows=32, cols=48, motion_blocks=2, blocks=1, keypoints=5)


TINY = UnicornConfig(images=16, width=16, blocks=1, head_channels=16, groups=4, embedding=32,
                     latent_rows=8, latent_cols=8, decoder_widths=(16, 16, 8, 8))


def empty_program():
    return dataclasses.replace(Sheet().program(), operations=np.zeros((0, 18), np.int64),
                               arguments=np.zeros((0, ARGUMENT_COUNT), np.int32), segments=())


@pytest.fixture(scope="module")
def fabric():
    with Fabric(empty_program(), default_overlay()) as built:
        yield built


def run_layer(fabric: Fabric, graph: Graph, layer: Layer,
              inputs: list[np.ndarray]) -> np.ndarray:
    """One layer through the C++ host, tensors stored plainly."""
    places, address = {}, 0
    for name in (*layer.inputs, layer.output):
        spec = graph.tensors[name]
        places[name] = plain_place(address, *spec.shape, spec.bits)
        address += -(-places[name].size_bytes // 64) * 64
    memory = np.full(address, 77, np.uint8)
    for name, tensor in zip(layer.inputs, inputs, strict=True):
        place = places[name]
        memory[place.address : place.address + place.size_bytes] = np.frombuffer(
            pack_tensor(tensor, place), np.uint8)
    fabric.load_host(host_table(graph, {3: layer, 4: None}, places))
    fabric.run_host(3, memory)
    fabric.run_host(4, memory)
    place = places[layer.output]
    return unpack_tensor(memory[place.address : place.address + place.size_bytes], place)


def one_layer(operator: Operator, **fields) -> Graph:
    inner = TensorSpec("in", 6, 7, 10, bits=fields.pop("bits", 8))
    outer = TensorSpec("out", *fields.pop("out"))
    layer = Layer("layer", operator, ("in",), "out", **fields)
    random = np.random.default_rng(1)
    constants = {"weights": random.integers(-128, 128, (4, 3, 3, 3), np.int8),
                 "bias": random.integers(-9999, 9999, 4).astype(np.int32),
                 "multiplier": np.full(4, 20001, np.int32), "shift": np.full(4, 24, np.int32),
                 "places": random.integers(-1, inner.elements, 105).astype(np.int32),
                 "one": np.array([7282], np.int32), "sixteen": np.array([16], np.int32),
                 "two": np.array([12001, 9003], np.int32), "zeros": np.array([97, -128], np.int32),
                 "offset": np.array([-1234567], np.int32),
                 "bytes": random.integers(-128, 128, (6, 256), np.int8),
                 "wide": random.integers(-32768, 32768, 257, np.int16),
                 "wides": random.integers(-999, 999, (6, 257), np.int16)}
    return Graph("one", ("in",), ("out",), {"in": inner, "out": outer}, (layer,), constants)


CONVOLUTION = one_layer(
    Operator.CONVOLUTION, out=(4, 4, 5), window=Window(3, 3, 2, 1, 2), relu=True,
    constants={role: role for role in ("weights", "bias", "multiplier", "shift")})
AVERAGE = one_layer(Operator.AVERAGE_POOL, out=(6, 4, 5), window=Window(3, 3, 2, 1),
                    constants={"multiplier": "one", "shift": "sixteen"})
MAXIMUM = one_layer(Operator.MAX_POOL, out=(6, 4, 5), window=Window(3, 3, 2, 1))




def of_two(operator: Operator, **constants: str) -> Graph:
    """A layer whose operands hold zero points."""
    graph = one_layer(operator, out=(6, 7, 10), constants=constants)
    layer = dataclasses.replace(graph.layers[0], inputs=("in", "other"))
    other = dataclasses.replace(graph.tensors["in"], name="other")
    return dataclasses.replace(graph, inputs=("in", "other"), layers=(layer,),
                               tensors={**graph.tensors, "other": other})


SHIFTED = [
    of_two(Operator.ADD, multiplier="two", shift="sixteen", offset="offset"),
    of_two(Operator.MULTIPLY, multiplier="one", shift="sixteen", zeros="zeros", offset="offset"),
    one_layer(Operator.AVERAGE_POOL, out=(6, 4, 5), window=Window(3, 3, 2, 1, pad_value=-41),
              constants={"multiplier": "one", "shift": "sixteen", "offset": "offset"})]


def decoder_cases(graph: Graph) -> list[tuple[str, Graph, Layer]]:
    """One layer of each operator, number of inputs and second operand of a decoder."""
    first: dict[tuple, Layer] = {}
    for layer in graph.layers:
        if len(layer.inputs) <= (2 if layer.operator is Operator.CONCAT else 3):
            other = graph.tensors[layer.inputs[-1]]
            key = (layer.operator, len(layer.inputs), other.positions == 1, other.channels == 1,
                   layer.window.stride)
            first.setdefault(key, layer)
    return [(f"{graph.name} {layer.name}", graph, layer) for layer in first.values()]


RESHAPE = one_layer(Operator.RESHAPE, out=(3, 20, 7))
GATHER = one_layer(Operator.GATHER, out=(5, 3, 7), constants={"places": "places"})
#: Tables by channel, and of int16, which are interpolated.
LOOKUPS = [one_layer(Operator.LOOKUP, out=(6, 7, 10, out), bits=bits, constants={"table": table})
           for table, bits, out in (("bytes", 8, 8), ("wide", 16, 16), ("wide", 16, 8),
                                    ("wides", 16, 8))]
CASES = [*decoder_cases(agc_graph(SMALL)), *decoder_cases(looped(unicorn_graph(TINY))),
         *((f"{graph.layers[0].operator.value} alone", graph, graph.layers[0])
           for graph in (CONVOLUTION, AVERAGE, MAXIMUM, RESHAPE, GATHER, *LOOKUPS)),
         *((f"{graph.layers[0].operator.value} with zero points", graph, graph.layers[0])
           for graph in SHIFTED)]


@pytest.mark.parametrize(("graph", "layer"), [case[1:] for case in CASES],
                         ids=[case[0] for case in CASES])
def test_operator(fabric, graph, layer):
    generator = np.random.default_rng(5)
    inputs = []
    for name in layer.inputs:
        spec = graph.tensors[name]
        low, high = (-128, 128) if spec.bits == 8 else (-12000, 12000)
        kind = np.int8 if spec.bits == 8 else np.int16
        inputs.append(generator.integers(low, high, spec.shape, kind))
    if layer.operator is Operator.GRID_SAMPLE:
        rows, columns = graph.tensors[layer.inputs[0]].shape[1:]
        inputs[1] = generator.integers(-300, (max(rows, columns) + 3) << layer.fraction_bits,
                                       inputs[1].shape, np.int16)
    want = reference.execute_layer(graph, layer, inputs)
    assert np.array_equal(run_layer(fabric, graph, layer, inputs), want)


def test_every_operator_of_the_table_is_tried():
    assert {case[2].operator for case in CASES} == set(OPERATOR_NUMBERS)


def test_bad_input_is_refused():
    four = dataclasses.replace(CONVOLUTION.layers[0], inputs=("in",) * 4)
    with pytest.raises(GraphError, match="4 inputs, the host takes 3"):
        host_table(CONVOLUTION, {0: four}, {})
    with Fabric(empty_program(), default_overlay()) as fabric, \
            pytest.raises(SimulationError, match="no program for layer 9"):
        fabric.run_host(9, np.zeros(8, np.uint8))
    with pytest.raises(SimulationError, match="not understood"):
        Fabric(empty_program(), default_overlay(), b"not a table at all")
