"""Emits a lowered design as a project on disk: sources, data, scripts, manifest.

It decides nothing about the design. The same arguments give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from arch_models.board import Board
from arch_models.fields import FieldError, label
from arch_models.memory import WINDOW, memory_for, tensor_bytes
from arch_models.overlay import Overlay, overlay_toml
from cosim.lowering.lower import Lowered
from cosim.lowering.packing import memory_image
from cosim.lowering.placement import PlacementError, TensorPlace
from cosim.program.table import Program
from hw.board.picture import pixels, png_bytes
from hw.csim.fabric import SOURCES
from hw.csim.top import top_source
from hw.interface.configuration import Configuration, EmissionError, configuration_header, configure
from hw.interface.descriptors import (
    DESCRIPTOR_BYTES,
    FILE_HEADER_BYTES,
    HEADER,
    SEGMENT_BYTES,
    TRANSFER,
    TRANSFER_OPCODES,
    DescriptorError,
    pack,
    shell_text,
)
from hw.interface.header import descriptor_header
from hw.interface.plan import HostStep, in_order_of_start, late_commands, steps
from hw.interface.ports import memory_ports
from hw.interface.registers import counter_registers, register_map
from hw.interface.vectors import Vectors, host_layers, make_vectors, outputs
from hw.project import scripts as project
from hw.project.documents import ManifestFile, ShippedTensor, Step
from hw.project.folder import check_target, write_project
from hw.project.prediction import prediction
from workloads.frames import Frame
from workloads.graph import Graph, GraphError

FORMAT = 1
NOISE = Frame()
#: How the numbers of a tensor lie, for the manifest. `real = integer * scale` in both.
LAYOUTS = {
    "file": "data/input_NAME.bin and data/output_NAME.bin: channels, rows, columns, one row after "
            "the other; int8, or int16 with the low byte first",
    "memory": "from `address` on, `planes` of rows x columns beats of 8 bytes, row by row; a beat "
              "holds 8 channels of 8 bits or 4 of 16. Channel c is lane places[c] % lanes of plane "
              "places[c] // lanes; lanes that no channel has are zero",
}


@dataclass(frozen=True)
class FileEntry:
    """Size and SHA-256 of one emitted file."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What was emitted. `files`: every file but the manifest itself, by path in the project."""

    name: str
    board: str
    design: str
    clock_hz: int
    program_sha256: str
    files: Mapping[str, FileEntry]


def emit(lowered: Lowered, graph: Graph, overlay: Overlay, board: Board, folder: str | Path,
         frame: Frame = NOISE, rtl: bool = False, force: bool = False) -> Manifest:
    """Write the project of a design into `folder`; see `hw.project.folder` for what stays there.

    With `rtl`, the Verilog of the IP comes too, and the block design takes it unless told
    otherwise; the manifest then has its counters.

    `frame`: the inputs it ships, and what tensors mean. `force`: overwrite files that no emission
    wrote. Raises `EmissionError` if the overlay cannot be emitted or the
    folder cannot be written.
    """
    target = Path(folder)
    check_target(target)
    try:
        contents = project_files(lowered, graph, overlay, board, frame, rtl)
    except (DescriptorError, FieldError, GraphError, PlacementError) as error:
        raise EmissionError(str(error)) from None
    write_project(contents, target, force)
    raw = json.loads(contents["manifest.json"])
    files = {name: FileEntry(**entry) for name, entry in raw["files"].items()}
    return Manifest(raw["name"], raw["board"], raw["design"], raw["clock_hz"],
                    raw["program_sha256"], files)


def project_files(lowered: Lowered, graph: Graph, overlay: Overlay, board: Board,
                  frame: Frame = NOISE, rtl: bool = False) -> dict[str, bytes]:
    """Path to content of every file of the project, in a fixed order; nothing is written."""
    _check_names(graph)
    project.check_family(board)
    configuration = configure(lowered.program, overlay)
    memory = memory_for(board, overlay)
    program = in_order_of_start(lowered.program, configuration, memory)
    lowered = replace(lowered, program=program)
    vectors = make_vectors(graph, lowered, frame.seed, frame.inputs)
    found = {f"sources/{path.name}": path.read_bytes()
             for path in sorted([*SOURCES.glob("*.hpp"), *SOURCES.glob("*.cpp")])}
    for name, text in (("config.hpp", configuration_header(program, configuration)),
                       ("descriptor.hpp", descriptor_header()),
                       ("overlay.cpp", top_source(program, configuration))):
        found[f"sources/{name}"] = text.encode()
    found |= _data_files(lowered, graph, overlay, vectors)
    found |= _pictures(lowered, graph, frame, vectors)
    said = prediction(program, configuration, memory, overlay.clock_hz)
    found["data/prediction.json"] = (json.dumps(said, indent=1) + "\n").encode()
    found["design.toml"] = overlay_toml(overlay).encode()
    found |= project.board_files()
    ports = project.ports_of(program, configuration, overlay)
    shown = project.Frame(_about(frame, found),
                          1e3 * sum(step["seconds"] for step in said["steps"]),
                          lowered.placement.size_bytes)
    found |= {name: text.encode() for name, text in
              project.texts(graph.name, overlay, board, ports, rtl, shown).items()}
    if rtl:
        # Only this needs Amaranth and Yosys.
        from hw.rtl.ip.axi_shell import AxiShell
        from hw.rtl.verilog import ip_verilog

        found["rtl/overlay.v"] = ip_verilog(AxiShell(program, overlay)).encode()
    manifest = _manifest(lowered, graph, overlay, board, configuration, found)
    manifest["inputs"], manifest["layouts"] = frame.about, LAYOUTS
    for name, entry in manifest["tensors"].items():
        entry["scale"] = graph.tensors[name].scale
        entry["meaning"] = frame.meanings.get(name, "")
    if overlay.tensor_memory_kib:
        manifest["window"] = {"first": WINDOW, "bytes": tensor_bytes(overlay)}
    manifest["late_commands"] = late_commands(program, configuration, memory)
    if rtl:
        manifest["backend"], manifest["counters"] = "rtl", counter_registers(program)
    for name, _ in graph.carried:
        # The last step leaves its result there.
        manifest["tensors"][name]["renew"] = True
    found["manifest.json"] = (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode()
    return dict(sorted(found.items()))


def _check_names(graph: Graph) -> None:
    """Readers check them too; here they become paths and words of `bench.txt`."""
    label(graph.name, "graph: name")
    for name in graph.tensors:
        label(name, "tensor")


def _data_files(lowered: Lowered, graph: Graph, overlay: Overlay,
                vectors: Vectors) -> dict[str, bytes]:
    placement, program = lowered.placement, lowered.program
    image = memory_image(graph, lowered.placement, overlay)
    found = {
        "data/descriptors.bin": pack(program), "data/program.json": shell_text(program).encode(),
        "data/weights.bin": image[placement.tensor_bytes :].tobytes(),
        "data/host.bin": host_layers(graph, lowered),
    }
    lines = [f"memory {placement.size_bytes}",
             f"operations {len(program.operations)} {_descriptors_offset(program)}"]
    lines += [f"segment {part.first} {part.last} {part.repeat}" for part in program.segments]
    lines.append(f"block weights.bin 0 {placement.size_bytes - placement.tensor_bytes} "
                 f"{placement.tensor_bytes}")
    for name, array in vectors.inputs.items():
        lines.append(_bench_line("input", name, placement.place(name)))
        found[f"data/input_{name}.bin"] = _little(array)
    for name in outputs(graph, lowered):
        lines.append(_bench_line("output", name, placement.place(name)))
        found[f"data/output_{name}.bin"] = _little(vectors.expected[name])
    found["data/bench.txt"] = ("\n".join(lines) + "\n").encode()
    return found


def _pictures(lowered: Lowered, graph: Graph, frame: Frame, vectors: Vectors) -> dict[str, bytes]:
    """What the outputs that are pictures should look like."""
    found = {}
    for name in outputs(graph, lowered):
        if frame.meanings.get(name, "").startswith("picture"):
            shown = pixels(vectors.expected[name], graph.tensors[name].scale)
            found[f"data/expected_{name}.png"] = png_bytes(shown)
    return found


def _about(frame: Frame, files: Mapping[str, bytes]) -> str:
    shown = [f"`{name}`" for name in sorted(files) if name.endswith(".png")]
    return frame.about + (f" What comes out is a picture, {shown[0]}." if shown else "")


def _little(array: np.ndarray) -> bytes:
    return np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"))).tobytes()


def _bench_line(kind: str, name: str, place: TensorPlace) -> str:
    numbers = (place.address, place.rows, place.columns, place.bits, place.channels,
               *place.places)
    return f"{kind} {kind}_{name}.bin " + " ".join(map(str, numbers))


def _descriptors_offset(program: Program) -> int:
    table = len(program.segments) * SEGMENT_BYTES
    return FILE_HEADER_BYTES + -(-table // FILE_HEADER_BYTES) * FILE_HEADER_BYTES


def _manifest(lowered: Lowered, graph: Graph, overlay: Overlay, board: Board,
              configuration: Configuration, files: Mapping[str, bytes]) -> ManifestFile:
    program, placement = lowered.program, lowered.placement
    ports = [port.name for port in memory_ports(program, configuration)]
    tensors: dict[str, ShippedTensor] = {}
    for path in files:
        role, _, name = path.removeprefix("data/").removesuffix(".bin").partition("_")
        if path.startswith("data/") and role in ("input", "output"):
            place = placement.place(name)
            tensors[name] = {
                "role": role, "address": place.address, "channels": place.channels,
                "rows": place.rows, "columns": place.columns, "bits": place.bits,
                "planes": place.planes, "bytes": place.size_bytes, "places": list(place.places)}
    plan: list[Step] = [{"kind": "host", "layer": step.layer} if isinstance(step, HostStep) else
            {"kind": "fabric", "first": step.first, "count": step.count,
             "repeats": step.repeats, "repeat_first": step.repeat_first}
            for step in steps(program, configuration)]
    return {
        "format": FORMAT, "name": graph.name, "board": board.name, "design": overlay.name,
        "clock_hz": overlay.clock_hz, "wait": overlay.control.wait.value,
        "program_sha256": program.content_hash(),
        "backend": "hls", "operations": len(program.operations),
        "descriptors_offset": _descriptors_offset(program),
        "descriptor_bytes": DESCRIPTOR_BYTES,
        "descriptor_fields": {item.name: {"offset": item.offset, "width": item.width,
                                          "signed": item.signed}
                              for item in (*HEADER, *TRANSFER)},
        "transfer_opcodes": sorted(int(item) for item in TRANSFER_OPCODES if item.name != "FETCH"),
        "memory_bytes": placement.size_bytes, "memory_ports": ports,
        "registers": register_map(("descriptors", *ports)), "steps": plan, "counters": [],
        "weights": [{"offset": 0, "bytes": placement.size_bytes - placement.tensor_bytes,
                     "address": placement.tensor_bytes}],
        "tensors": tensors, "layers": list(program.layers),
        "tools": project.TOOLS, "unchecked": list(project.UNCHECKED),
        "files": {name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
                  for name, data in sorted(files.items())},
    }


__all__ = ["EmissionError", "FileEntry", "Manifest", "emit", "project_files"]
