"""Do the tokens alone keep the processes of the synthesized top apart?"""

from __future__ import annotations

import subprocess

import numpy as np
import pytest

from arch_models.overlay import default_overlay
from cosim.analysis.image import MemoryImage
from hw.csim.fabric import SOURCES, Fabric, compile_sources, write_headers
from hw.csim.top import top_source
from hw.interface.configuration import configure
from hw.interface.descriptors import encode
from hw.interface.plan import HostStep, steps
from hw.interface.ports import memory_ports
from hw.interface.vectors import host_layers, make_vectors
from tests.support.small_frames import lowered_frame, small_graph

MAIN = """\
#include <fstream>
#include <iterator>
#include <vector>

#include "types.hpp"

extern "C" void overlay(const std::uint64_t *, %s, std::uint32_t, std::uint32_t, std::uint32_t,
                        std::uint32_t, std::uint32_t);

static std::vector<char> load(const char *path) {
    std::ifstream file(path, std::ios::binary);
    return std::vector<char>(std::istreambuf_iterator<char>(file),
                             std::istreambuf_iterator<char>());
}

int main() {
    std::vector<char> commands = load("commands.bin"), image = load("memory.bin");
    cosim::Beat *memory = reinterpret_cast<cosim::Beat *>(image.data());
    overlay(reinterpret_cast<const std::uint64_t *>(commands.data()), %s, %d, %d, 1, 0, 1);
    std::ofstream("memory.bin", std::ios::binary)
        .write(image.data(), static_cast<std::streamsize>(image.size()));
}
"""


@pytest.mark.long
def test_the_thread_sanitizer_finds_no_race(tmp_path):
    overlay, graph, lowered = default_overlay(), small_graph(), lowered_frame(default_overlay())
    program, configuration = lowered.program, configure(lowered.program, overlay)
    vectors = make_vectors(graph, lowered)
    memory = MemoryImage.start(graph, lowered, overlay, vectors.inputs).data
    plan = steps(program, configuration)
    with Fabric(program, overlay, host_layers(graph, lowered)) as fabric:
        for step in plan[:-1]:
            assert isinstance(step, HostStep)
            fabric.run_host(step.layer, memory)
    start, ports = plan[-1], memory_ports(program, configuration)
    for path in SOURCES.glob("*.hpp"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    write_headers(program, overlay, tmp_path)
    (tmp_path / "overlay.cpp").write_text(top_source(program, configuration))
    kinds = ", ".join(f"{'' if port.writes else 'const '}cosim::Beat *" for port in ports)
    (tmp_path / "main.cpp").write_text(
        MAIN % (kinds, ", ".join("memory" for _ in ports), start.first, start.count))
    (tmp_path / "commands.bin").write_bytes(encode(program))
    memory.tofile(tmp_path / "memory.bin")
    compile_sources(tmp_path, ("overlay.cpp", "main.cpp"), tmp_path / "main",
                    ("-std=c++14", "-O1", "-g", "-fsanitize=thread", "-pthread"))
    done = subprocess.run(["./main"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    found = np.fromfile(tmp_path / "memory.bin", np.uint8)
    picture = MemoryImage(graph, lowered, found).get("picture")
    assert np.array_equal(picture, vectors.expected["picture"])
