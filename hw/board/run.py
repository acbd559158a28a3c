"""Runs an emitted project on the board and writes a measurement file.

It only parses arguments and calls the driver. Example, in the project's folder, as root:

    python3 board/run.py --bitstream build/overlay.bit --repeats 20 --output measurement.json
"""

from __future__ import annotations

import argparse
import os
import sys

try:
    from hw.board.driver import Driver, Stopped
    from hw.board.emitted import DriverError, Project
    from hw.board.hardware import HostLibrary, PynqHardware
    from hw.board.measurement import (
        MeasurementError,
        check_output,
        measurement_text,
        save_measurement,
        write_whole,
    )
    from hw.board.picture import png_bytes
except ImportError:  # beside these files in an emitted project
    from driver import Driver, Stopped  # type: ignore[no-redef, import-not-found]
    from emitted import DriverError, Project  # type: ignore[no-redef, import-not-found]
    from hardware import (  # type: ignore[no-redef, import-not-found]
        HostLibrary,
        PynqHardware,
    )
    from measurement import (  # type: ignore[no-redef, import-not-found]
        MeasurementError,
        check_output,
        measurement_text,
        save_measurement,
        write_whole,
    )
    from picture import png_bytes  # type: ignore[no-redef, import-not-found]


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0 if every value is right, 1 if some differ, 2 if it could not run."""
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    parser = argparse.ArgumentParser(description="Run frames on the board, time them, compare.")
    parser.add_argument("--project", default=here, help="the emitted project's folder")
    parser.add_argument("--bitstream", required=True, help="the .bit file, its .hwh beside it")
    parser.add_argument("--repeats", type=int, default=10, help="timed frames")
    parser.add_argument("--timeout", type=float, default=30.0, help="seconds for one start")
    parser.add_argument("--power", help="a meter's CSV: unix_seconds,watts, or rails by name")
    parser.add_argument("--output", default="measurement.json", help="where the result goes")
    parser.add_argument("--picture", help="a .png file for the picture that comes out")
    given = parser.parse_args(arguments)
    picture = None
    try:
        for path in (given.output, given.picture or given.output):
            check_output(path)
        project = Project(given.project)
        host = HostLibrary(os.path.join(given.project, "build", "libhost.so"),
                           project.data("data/host.bin"))
        with Driver(project, PynqHardware(wait=project.manifest["wait"]), host,
                    given.bitstream, timeout_s=given.timeout) as driver:
            driver.put_vectors()
            measurement = driver.measure(given.repeats, driver.expected_vectors(), given.power)
            picture = driver.picture() if given.picture else None
    except (DriverError, MeasurementError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, Stopped) as error:
        print("stopped, and the fabric with it; nothing was written", file=sys.stderr)
        return error.number + 128 if isinstance(error, Stopped) else 130
    try:
        save_measurement(measurement, given.output)
        if picture is not None:
            write_whole(given.picture, png_bytes(picture))
    except MeasurementError as error:
        # What was measured is not lost with the disk.
        print(measurement_text(measurement), end="")
        print(f"error: {error}; the measurement is printed instead", file=sys.stderr)
        return 2
    print(f"{measurement.values_compared} values compared, {measurement.values_differing} differ; "
          f"mean frame {sum(measurement.frame_seconds) / given.repeats * 1e3:.3f} ms at "
          f"{measurement.clock_hz / 1e6:.3f} MHz; "
          f"wrote {given.output}")
    return 1 if measurement.values_differing else 0


if __name__ == "__main__":
    sys.exit(main())
