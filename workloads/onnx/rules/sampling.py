"""What resizing and grid sampling of ONNX become.

It walks no graph. A rule that cannot keep a node's meaning raises Unsupported.

A Resize is moved elements (nearest) or one matrix product an axis. A GridSample in two axes is
the graph's own layer; in three axes it is the sum over the depths of the volume, each sampled in
two axes and weighed by how near it is: what trilinear interpolation is.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from workloads.graph import Operator, Window
from workloads.onnx import shifted
from workloads.onnx.read import Node
from workloads.onnx.rules.interpolation import Stretch, exact_step, grid_digits, interpolation
from workloads.onnx.rules.windows import convolution, spatial
from workloads.onnx.walk import Unsupported, View, Walk, three
from workloads.quantization.float_network import Function


def resize(walk: Walk, node: Node) -> None:
    """Nearest: repeats of two, or moved elements. Otherwise a matrix product for each axis."""
    nearest = node.text("mode", "nearest") == "nearest"
    view, offset = shifted.held(walk, node.inputs[0])
    old = node.operator == "Upsample" or node.opset < 11
    for index, axis in enumerate(_stretches(walk, node, view.shape)):
        if axis.kept:
            continue
        matrix = interpolation(node, axis, old)
        if nearest:
            places = np.where((matrix.sum(axis=1) > 0).reshape(
                [-1 if other == index else 1 for other in range(len(view.shape))]),
                view.places.take(matrix.argmax(axis=1), index), -1)
            view = View(view.tensor, places.shape, places)
        elif axis.before != axis.after or not np.array_equal(matrix, np.eye(axis.before)):
            view = _mixed(walk, node, view, index, matrix)
    walk.views[node.outputs[0]] = _repeated(walk, node, view)
    shifted.pass_on(walk, node.outputs[0], offset)


def _stretches(walk: Walk, node: Node, shape: tuple[int, ...]) -> list[Stretch]:
    """What happens to each axis: sizes, scale and the part that is read."""
    old = node.operator == "Upsample" or node.opset < 11
    rank = len(shape)
    axes = [axis % rank for axis in node.attribute("axes", range(rank))]
    scales, sizes = walk.optional(node, 1 if old else 2), walk.optional(node, 3)
    region = None if old else walk.optional(node, 1)
    found = [Stretch(size, size, 1.0) for size in shape]
    if sizes is not None and sizes.size:
        wanted = [float(size) for size in sizes.reshape(-1)]
        ratios = [size / shape[axis] for axis, size in zip(axes, wanted, strict=True)]
        policy = node.text("keep_aspect_ratio_policy", "stretch")
        if policy != "stretch":
            ratio = min(ratios) if policy == "not_larger" else max(ratios)
            ratios = [ratio] * len(axes)
            wanted = [math.floor(ratio * shape[axis] + 0.5) for axis in axes]
        for axis, size, ratio in zip(axes, wanted, ratios, strict=True):
            found[axis] = Stretch(shape[axis], int(size), ratio)
    elif scales is not None and scales.size:
        for axis, scale in zip(axes, scales.reshape(-1), strict=True):
            found[axis] = Stretch(shape[axis], math.floor(shape[axis] * scale), float(scale))
    else:
        raise Unsupported("scales or sizes must be constant")
    if node.text("coordinate_transformation_mode", "") == "tf_crop_and_resize":
        if region is None or region.size != 2 * len(axes):
            raise Unsupported("roi must be constant, two numbers an axis")
        ends = region.reshape(2, -1).T
        for axis, (start, end) in zip(axes, ends, strict=True):
            found[axis] = replace(found[axis], region=(float(start), float(end)))
    return found


def _repeated(walk: Walk, node: Node, view: View) -> View:
    """The view made of upsamples by two where it is nothing else."""
    channels, rows, columns = walk.tensors[view.tensor].shape
    if len(view.shape) != 4 or view.moved is None:
        return view
    times = view.shape[2] // max(rows, 1)
    plain = (times >= 2 and not times & (times - 1)
             and view.shape == (1, channels, rows * times, columns * times))
    if not plain:
        return view
    there = np.arange(channels * rows * columns).reshape(1, channels, rows, columns)
    if not np.array_equal(view.places, there.repeat(times, 2).repeat(times, 3)):
        return view
    made = view.tensor
    while times > 1:
        channels, rows, columns = walk.tensors[made].shape
        twice = walk.add(node.outputs[0], Operator.UPSAMPLE, (made,), (),
                         (channels, 2 * rows, 2 * columns))
        made, times = walk.keep_scale(twice, made), times // 2
    return View(made, view.shape)


def _mixed(walk: Walk, node: Node, view: View, axis: int, matrix: np.ndarray) -> View:
    """Interpolate along an axis: a convolution whose channels are the places of the axis."""
    moved = np.moveaxis(view.places, axis, 0)
    source = walk.arranged(view.tensor, moved.reshape(three((1, len(moved), moved[0].size))),
                           free=True)
    step = exact_step(matrix)
    made = convolution(walk, f"{node.outputs[0]}.axis{axis}", source,
                       matrix.reshape(*matrix.shape, 1, 1),
                       walk.shifts.get(source, 0.0) * (1 - matrix.sum(axis=1)), Window(),
                       np.array([step]))
    walk.keep_scale(made, source)
    places = np.arange(walk.tensors[made].elements, dtype=np.int32)
    back = np.moveaxis(places.reshape(len(matrix), *moved.shape[1:]), 0, axis)
    return View(made, back.shape, back)


def grid_sample(walk: Walk, node: Node) -> None:
    """GridSample in two or three axes: the grid becomes int16 coordinates in pixels."""
    mode = node.text("mode", "linear")
    if mode not in ("linear", "bilinear"):
        raise Unsupported(f"mode {mode} must be linear (bilinear)")
    view, grid = spatial(walk.view(node.inputs[0])), walk.view(node.inputs[1])
    axes = len(view.shape) - 2
    if axes not in (2, 3) or len(grid.shape) != axes + 2 or grid.shape[-1] != axes:
        raise Unsupported(f"a picture of {view.shape} and a grid of {grid.shape} must have two or "
                          "three axes")
    parts = []
    for batch in range(view.shape[0]):
        name = node.outputs[0] if view.shape[0] == 1 else f"{node.outputs[0]}.batch{batch}"
        taken = replace(node, outputs=(name,))
        sample = _flat_sample if axes == 2 else _deep_sample
        parts.append(sample(walk, taken, View(view.tensor, (), view.places[batch]),
                            View(grid.tensor, (), grid.places[batch])))
    made = parts[0] if len(parts) == 1 else walk.add(
        node.outputs[0], Operator.CONCAT, tuple(parts), (),
        (view.shape[0] * view.shape[1], *walk.tensors[parts[0]].shape[1:]))
    shape = (*view.shape[:2], *grid.shape[1:-1])
    walk.views[node.outputs[0]] = View(made, shape)


def _flat_sample(walk: Walk, node: Node, view: View, grid: View) -> str:
    """One picture (channels, rows, columns) at one grid (rows, columns, 2)."""
    source = walk.arranged(view.tensor, view.places)
    wanted = walk.arranged(grid.tensor, grid.places.transpose(2, 0, 1))
    spec = walk.tensors[source]
    digits = grid_digits(spec.rows, spec.columns)
    pixels = _pixels(walk, node, wanted, (spec.columns, spec.rows), digits)
    return _sampled(walk, node.outputs[0], source, pixels, digits)


def _sampled(walk: Walk, name: str, source: str, pixels: str, digits: int) -> str:
    shape = (walk.tensors[source].channels, *walk.tensors[pixels].shape[1:])
    made = walk.add(name, Operator.GRID_SAMPLE, (source, pixels), (), shape,
                    fraction_bits=digits)
    return walk.keep_scale(made, source)


def _deep_sample(walk: Walk, node: Node, view: View, grid: View) -> str:
    """One volume (channels, depths, rows, columns) at one grid (..., 3): the sum over the depths
    of each one's sample, weighed by max(0, 1 - distance)."""
    depths, rows, columns = view.places.shape[1:]
    shape = grid.places.shape[:-1]
    digits = grid_digits(depths, rows, columns)
    places = np.moveaxis(grid.places, -1, 0).reshape(3, shape[0] * shape[1], shape[2])
    flat = walk.arranged(grid.tensor, places)
    pixels = _pixels(walk, node, flat, (columns, rows, depths), digits)
    order = np.arange(walk.tensors[pixels].elements).reshape(3, *places.shape[1:])
    across, into = walk.arranged(pixels, order[:2]), walk.arranged(pixels, order[2:])
    total = ""
    for depth in range(depths):
        name = f"{node.outputs[0]}.depth{depth}"
        source = walk.arranged(view.tensor, view.places[:, depth])
        sample = _sampled(walk, f"{name}.sample", source, across, digits)
        near = walk.add(f"{name}.near", Operator.LOOKUP, (into,), ("table",))
        walk.functions[near] = _nearness(depth)
        walk.fixed[near] = 2.0**-7
        part = walk.add(f"{name}.part", Operator.MULTIPLY, (sample, near),
                        ("multiplier", "shift"))
        total = part if not total else walk.add(
            name, Operator.ADD, (total, part), ("multiplier", "shift"))
    return total


def _nearness(depth: int) -> Function:
    return lambda place: np.maximum(1 - np.abs(place - depth), 0)


def _pixels(walk: Walk, node: Node, grid: str, sizes: tuple[int, ...], digits: int) -> str:
    """Coordinates of -1 .. 1 as int16 pixels, kept inside where the file asks for it."""
    corners = bool(node.attribute("align_corners", 0))
    size = np.array(sizes, np.float32)
    scale, offset = ((size - 1) if corners else size) / 2, (size - 1) / 2
    around = node.text("padding_mode", "zeros")
    name = f"{node.outputs[0]}.pixels"
    if around == "zeros":
        return _moved(walk, name, grid, scale, offset, digits)
    if around == "reflection":
        grid = _mirrored(walk, name, grid)
    elif around != "border":
        raise Unsupported(f"padding_mode {around} must be zeros, border or reflection")
    # min(max(p, 0), last) = last - relu(last - relu(p)): exact in integers.
    low = _moved(walk, f"{name}.low", grid, scale, offset, digits, relu=True)
    high = _moved(walk, f"{name}.high", low, -np.ones_like(size), size - 1, digits, relu=True)
    return _moved(walk, name, high, -np.ones_like(size), size - 1, digits)


def _moved(walk: Walk, name: str, source: str, scale: np.ndarray, offset: np.ndarray,
           digits: int, relu: bool = False) -> str:
    made = walk.add(name, Operator.AFFINE, (source,), ("multiplier", "offset", "shift"), bits=16,
                    relu=relu)
    walk.weights[f"{made}.scale"] = np.asarray(scale, np.float32)
    walk.weights[f"{made}.offset"] = np.asarray(offset, np.float32)
    walk.fixed[made] = 2.0**-digits
    return made


def _mirrored(walk: Walk, name: str, grid: str) -> str:
    """Coordinates reflected at -1 and 1 as often as needed.

    The table's entries are 1/32 apart, so that it holds the bends exactly.
    """
    ones = np.ones(walk.tensors[grid].channels)
    wide = _moved(walk, f"{name}.grid", grid, ones, 0 * ones, 13)
    made = walk.add(f"{name}.mirrored", Operator.LOOKUP, (wide,), ("table",), bits=16)
    walk.functions[made] = lambda place: np.abs(np.mod(place - 1, 4) - 2) - 1
    walk.fixed[made] = 2.0**-14
    return made
