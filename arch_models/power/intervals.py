"""How far a sum of coefficients times counts may be off: 80 % limits, of one sum and of a ratio.

It knows no energy model. A coefficient has the standard deviation of its logarithm as its error;
one that says none has that of its status. Coefficients are taken to be independent, but for one
pair that was fitted together, and logarithms of sums to be normal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp, sqrt

from arch_models.fields import Coefficient, Status

#: Standard deviations on each side of an 80 % interval of a normal distribution.
Z80 = 1.2816
#: Errors of numbers that say none. Assumed: nobody states how far a recalled number is off.
ERROR_OF_STATUS: Mapping[Status, float] = {
    Status.STATED: 0.05, Status.MEASURED: 0.05, Status.COMPUTED: 0.05, Status.VENDOR: 0.3,
    Status.INFERRED: 0.15, Status.RECALLED: 0.3, Status.GUESS: 0.5}
#: Of the variance that a design has of its own, the part that two designs of ours do not share.
#: Assumed: nobody measured two designs of one family.
OWN_VARIANCE = 0.5
#: The name under which a design's own error is told.
DESIGN = "this design"


@dataclass(frozen=True)
class Errors:
    """Errors by coefficient, the correlation of two of them, and what a design has of its own.

    `design`: an error on everything that is counted with the coefficients of `family`.
    """

    of: Mapping[str, float]
    pair: tuple[str, str] = ("", "")
    correlation: float = 0.0
    design: float = 0.0
    family: frozenset[str] = frozenset()


def error_of(item: Coefficient) -> float:
    """A coefficient's own error, or that of its status."""
    return item.error or ERROR_OF_STATUS[item.status]


def variances(joules: Mapping[str, float], errors: Errors) -> dict[str, float]:
    """What each coefficient adds to the variance of the logarithm of the sum, `DESIGN` too.

    `joules`: the sum by coefficient. The pair's common term is halved between the two.
    """
    shares = _shares(joules)
    return {**_of_coefficients(shares, errors), DESIGN: (errors.design * _family(shares, errors))
            ** 2}


def _shares(joules: Mapping[str, float]) -> dict[str, float]:
    total = sum(joules.values())
    return {name: value / total for name, value in joules.items()} if total else {}


def _family(shares: Mapping[str, float], errors: Errors) -> float:
    return sum(value for name, value in shares.items() if name in errors.family)


def _of_coefficients(shares: Mapping[str, float], errors: Errors) -> dict[str, float]:
    scaled = {name: errors.of.get(name, 0.0) * share for name, share in shares.items()}
    found = {name: value * value for name, value in scaled.items()}
    one, other = errors.pair
    both = errors.correlation * scaled.get(one, 0.0) * scaled.get(other, 0.0)
    for name in errors.pair:
        if name in found:
            found[name] += both
    return found


def spread(joules: Mapping[str, float], errors: Errors) -> float:
    """Standard deviation of the logarithm of the sum."""
    return sqrt(max(0.0, sum(variances(joules, errors).values())))


def limits(total: float, deviation: float) -> tuple[float, float]:
    """The 80 % limits of a total whose logarithm has this standard deviation."""
    factor = exp(Z80 * deviation)
    return total / factor, total * factor


def ratio_limits(one: Mapping[str, float], other: Mapping[str, float],
                 errors: Errors, own: float = OWN_VARIANCE) -> tuple[float, float, float]:
    """one / other, and its 80 % limits: what both share cancels; `own`: of a design's variance.

    A coefficient that makes the same share of both moves both alike. Both sums by coefficient,
    neither zero.
    """
    sides = _shares(one), _shares(other)
    names = dict.fromkeys([*one, *other])
    apart = {name: sides[0].get(name, 0.0) - sides[1].get(name, 0.0) for name in names}
    family = [_family(side, errors) for side in sides]
    variance = (sum(_of_coefficients(apart, errors).values())
                + errors.design ** 2 * ((1 - own) * (family[0] - family[1]) ** 2
                                        + own * sum(part * part for part in family)))
    ratio = sum(one.values()) / sum(other.values())
    return ratio, *limits(ratio, sqrt(max(0.0, variance)))
