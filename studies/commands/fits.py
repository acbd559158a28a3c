"""`cosim study` of coefficients: what the models read is synthesized, fitted and written anew.

It parses and writes; what is fitted to what, and how far it is off, is in the study's own module.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated

import typer

from studies.commands.options import Json
from studies.plain.errors import UserError
from studies.plain.files import check_writables, write_json
from studies.plain.records import encode
from studies.plain.terminal import terminal


def resources(
    synthesize: Annotated[list[str] | None, typer.Option(
        help="Synthesize the rows of this part anew with Yosys first; may be repeated; `all` "
             "takes every part.", show_default=False)] = None,
    grid: Annotated[Path | None, typer.Option(
        help="The grid.", show_default="arch_models/data/resource_grid.csv")] = None,
    write: Annotated[bool, typer.Option(
        "--write", help="Write the coefficients that the resource model reads.")] = False,
    whole: Annotated[str | None, typer.Option(
        help="Synthesize this whole design instead, beside the model.", show_default=False,
    )] = None,
    json: Json = None,
) -> None:
    """Fit the resource model to Yosys runs of every part of the RTL."""
    from amaranth.hdl import UnusedElaboratable

    from studies.resources import fit_resources as study

    warnings.simplefilter("ignore", UnusedElaboratable)  # parts of units that are holes
    check_writables(json)
    try:
        if whole is not None:
            beside = study.compare_whole(whole)
            if json is not None:
                write_json(json, encode(beside))
            print(study.told_whole(beside))
            return
        where = grid or study.GRID_FILE
        if synthesize:
            study.synthesize_parts([] if synthesize == ["all"] else synthesize, where)
        rows = study.read_grid(where)
    except (RuntimeError, OSError) as error:
        raise UserError(str(error)) from error
    if write:
        study.write_coefficients(rows)
    if json is not None:
        write_json(json, encode(study.fits(rows)))
    print(study.told(rows))


def fit_vta(json: Json = None) -> None:
    """Fit the timing of VTA on PYNQ to times that others measured; takes two minutes.

    Each network, and every fourth row, is also predicted from the others. Writes no coefficients.
    """
    from studies.validate import fit_vta as study

    check_writables(json)
    found = study.run()
    if json is not None:
        write_json(json, encode(found))
    study.show(terminal(), found)


def fit_energy(
    write: Annotated[bool, typer.Option(
        "--write", help="Write the coefficients that the energy model reads.")] = False,
    tables: Annotated[bool, typer.Option(
        "--tables", help="Write the carried table of rails anew first.")] = False,
    json: Json = None,
) -> None:
    """Fit the energy coefficients to rails and reports that others measured."""
    from studies.energy import fit

    check_writables(json)
    if tables:
        fit.write_tables()
    found = fit.fitted()
    if json is not None:
        write_json(json, encode(found))
    if write:
        fit.write_coefficients(found)
    print(fit.told(found))


def toggles(
    write: Annotated[bool, typer.Option(
        "--write", help="Write the table that the energy model reads.")] = False,
    json: Json = None,
) -> None:
    """Count how many bits real frames toggle in the array, against noise."""
    from studies.energy import toggles as study

    check_writables(json)
    found = study.rows()
    if json is not None:
        write_json(json, encode(found))
    if write:
        study.write_table(found)
    print(study.told(found))


def timing(
    parts: Annotated[list[str] | None, typer.Argument(
        help="Parts to synthesize anew; the others stay as the file has them.",
        show_default="all of them")] = None,
    grid: Annotated[Path | None, typer.Option(
        help="The grid to write.", show_default="arch_models/data/timing_grid.csv")] = None,
) -> None:
    """Make the clock model's grid of longest paths anew with Yosys (half an hour)."""
    from studies.resources import timing_grid as study

    study.remake(parts or [], grid or study.GRID_FILE)


def paths(
    subject: Annotated[str, typer.Argument(
        help="A design's .toml file, a netlist's .json file (Yosys), or a part of the RTL.")],
    parameters: Annotated[list[str] | None, typer.Argument(
        help="name=value of a part, as the columns of the resource grid.",
        show_default=False)] = None,
    share: Annotated[float, typer.Option(
        min=0, max=1, help="Share of the fabric's LUTs that the whole design uses.")] = 0.5,
    registers: Annotated[bool, typer.Option(
        "--registers", help="Leave out paths from and to ports.")] = False,
    count: Annotated[int, typer.Option(min=1, help="So many paths.")] = 10,
    hops: Annotated[int, typer.Option(min=0, help="Of so many of them, every hop.")] = 2,
    json: Json = None,
) -> None:
    """Find the longest paths of a part of the RTL, of a whole design or of a netlist.

    Example: cosim study paths softmax tm=16 tn=8 channels=4
    """
    from studies.resources import timing as study

    check_writables(json)
    request = study.Request(subject, tuple(parameters or ()), share, registers, count)
    found = study.run(request)
    if json is not None:
        write_json(json, encode(found))
    print(study.told(request, found, hops))
