"""Runs an emitted project on the board and writes a measurement file.

It only parses arguments and calls the driver. Example, in the project's folder, as root:

    python3 board/run.py --bitstream build/overlay.bit --repeats 20 --output measurement.json
"""

from __future__ import annotations

import argparse
import os
import sys

try:
    from hw.board.driver import Driver, HostLibrary, PynqHardware
    from hw.board.emitted import DriverError, Project
    from hw.board.measurement import save_measurement
except ImportError:  # beside these files in an emitted project
    from driver import (  # type: ignore[no-redef, import-not-found]
        Driver,
        HostLibrary,
        PynqHardware,
    )
    from emitted import DriverError, Project  # type: ignore[no-redef, import-not-found]
    from measurement import save_measurement  # type: ignore[no-redef, import-not-found]


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0 if every value is right, 1 if some differ, 2 if it could not run."""
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    parser = argparse.ArgumentParser(description="Run frames on the board, time them, compare.")
    parser.add_argument("--project", default=here, help="the emitted project's folder")
    parser.add_argument("--bitstream", required=True, help="the .bit file, its .hwh beside it")
    parser.add_argument("--repeats", type=int, default=10, help="timed frames")
    parser.add_argument("--timeout", type=float, default=30.0, help="seconds for one start")
    parser.add_argument("--power", help="a meter's CSV with lines unix_seconds,watts")
    parser.add_argument("--output", default="measurement.json", help="where the result goes")
    given = parser.parse_args(arguments)
    try:
        project = Project(given.project)
        host = HostLibrary(os.path.join(given.project, "build", "libhost.so"),
                           project.data("data/host.bin"))
        with Driver(project, PynqHardware(), host, given.bitstream,
                    timeout_s=given.timeout) as driver:
            driver.put_vectors()
            measurement = driver.measure(given.repeats, driver.expected_vectors(), given.power)
    except DriverError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    save_measurement(measurement, given.output)
    print(f"{measurement.values_compared} values compared, {measurement.values_differing} differ; "
          f"mean frame {sum(measurement.frame_seconds) / given.repeats * 1e3:.3f} ms; "
          f"wrote {given.output}")
    return 1 if measurement.values_differing else 0


if __name__ == "__main__":
    sys.exit(main())
