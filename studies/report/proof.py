"""A certificate as values that a page draws: the claim, the space, what excludes how many designs.

It believes what the file says and checks nothing: `cosim check` does.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from studies.certify.bounds import Rule
from studies.certify.boxes import Box
from studies.certify.certificate import Claim, Claimed, Document, Node, said
from studies.plain.errors import UserError

#: What excludes a box, for a reader; see docs/proof.md.
WORDS = {Rule.SITES: "more sites than the part has",
         Rule.LAYERS: "the layers' least time at the fastest clock",
         Rule.MAPPED: "their least time with the mapping's layouts",
         Rule.BANKED: "each size of the buffers by itself, whatever the tiles",
         Rule.TABLE: "each size of the buffers by itself",
         Rule.WAYS: "each size by itself, what is left simulated in every way"}
#: Cuts one below the other that are drawn; what lies deeper is counted.
DEPTH = 5
#: Boxes that are drawn, the largest of each cut first.
MOST_DRAWN = 400


def proof_section(document: Document) -> dict[str, Any]:
    """What the page draws of a certificate; counts of designs are floats, some are large.

    `rules`: boxes and designs that each rule excludes; they sum to all. `cuts`: boxes from the
    whole space on, each with its parent's place (-1 for the first). `UserError` for a file whose
    boxes name an axis that its space lacks.
    """
    claim = document.claim
    first = first_of(claim)
    cuts = list(_cuts(Box(document.space), document.boxes))
    rules = {rule: [0, 0.0] for rule in Rule}
    for item in cuts:
        if item["rule"] is not None:
            rules[item["rule"]][0] += 1
            rules[item["rule"]][1] += item["designs"]
    return {
        "said": said(claim), "gap": claim.gap, "memory": claim.memory,
        "designs": float(claim.designs), "workload": claim.workload, "board": claim.board,
        "axes": [{"name": axis.name, "values": list(axis.values),
                  "when": f"{axis.when.axis} {', '.join(map(str, axis.when.values))}"
                  if axis.when else "", "best": first.choice.get(axis.name)}
                 for axis in document.space.axes],
        "rules": [{"rule": rule.value, "words": WORDS[rule], "boxes": boxes, "designs": designs}
                  for rule, (boxes, designs) in rules.items()],
        "cuts": _drawn(cuts),
    }


def first_of(claim: Claim) -> Claimed:
    """The design that stands for a certificate; `UserError` if it names none."""
    if not claim.best:
        raise UserError("the certificate names no design")
    return claim.best[0]


def _cuts(box: Box, node: Node) -> Iterator[dict[str, Any]]:
    """Every box of a certificate, a box before its parts."""
    waiting = [(box, node, -1, "the whole space", 0)]
    place = 0
    while waiting:
        box, node, parent, name, depth = waiting.pop()
        yield {"parent": parent, "name": name, "designs": float(box.designs), "depth": depth,
               "rule": node.rule, "axis": node.axis}
        if node.parts and not box.values(node.axis):
            raise UserError(f"a box is cut along {node.axis!r}, which is no axis of the space")
        for part in reversed(node.parts):
            text = f"{node.axis} {', '.join(map(str, part.values))}"
            waiting.append((box.narrowed(**{node.axis: part.values}), part, place, text,
                            depth + 1))
        place += 1


def _drawn(cuts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The largest boxes of the first cuts, each with the share of its designs that rules exclude.

    A box that is not drawn is part of the one around it, which is no smaller and so is drawn.
    """
    shares: list[dict[str, float]] = [{} for _ in cuts]
    for place in reversed(range(len(cuts))):
        item = cuts[place]
        if item["rule"] is not None:
            shares[place] = {item["rule"].value: item["designs"]}
        if item["parent"] >= 0:
            above = shares[item["parent"]]
            for rule, designs in shares[place].items():
                above[rule] = above.get(rule, 0.0) + designs
    kept = sorted((place for place, item in enumerate(cuts) if item["depth"] <= DEPTH),
                  key=lambda place: (-cuts[place]["designs"], place))[:MOST_DRAWN]
    numbers = {place: number for number, place in enumerate(sorted(kept))}
    return [{"parent": numbers.get(cuts[place]["parent"], -1), "name": cuts[place]["name"],
             "designs": cuts[place]["designs"], "rules": shares[place]} for place in sorted(kept)]
