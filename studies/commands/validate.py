"""`cosim validate`: run a public check of the models and show predicted against reference.

It holds no checks; those are in `validate_memory` and `validate_vta`.
"""

from __future__ import annotations

from studies.commands.options import Json
from studies.files import check_writable


def memory(json: Json = None) -> None:
    """Check the ddr3 memory against the vendor's efficiencies and measured latencies."""
    from studies.validate_memory import main

    _run(main, json)


def vta_pynq(json: Json = None) -> None:
    """Check the simulator against published measurements of the VTA accelerator on PYNQ."""
    from studies.validate_vta import main

    _run(main, json)


def _run(main, json) -> None:  # type: ignore[no-untyped-def]
    if json is not None:
        check_writable(json)
    main(["--json", str(json)] if json is not None else [])
