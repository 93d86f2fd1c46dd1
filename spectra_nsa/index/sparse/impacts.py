"""How the weights of postings are stored: as they are, or as codes of one or two bytes that a table decodes.

| form | bytes | largest relative error |
|---|---|---|
| `float32` | 4 | none: exact |
| `float16` | 2 | 2⁻¹¹ = 0.05 % (for weights from 2⁻¹⁴ to 65,504) |
| `uint8` | 1 | 2¹ᐟ³² − 1 = 2.2 %: 16 steps per octave (for weights from 2⁻¹⁰ to 64) |

The code of a weight depends on nothing else, so merging segments adds no error.
"""

from __future__ import annotations

import functools
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from spectra_nsa.core.errors import SpectraError, unknown_name

ImpactForm = Literal["float32", "float16", "uint8"]
FORMS: tuple[ImpactForm, ...] = get_args(ImpactForm)
STORED: dict[ImpactForm, Any] = {"float32": np.float32, "float16": np.uint16, "uint8": np.uint8}
_OCTAVE, _TOP = 16, 6.0  # codes per octave, and the exponent of the largest weight


def check_form(form: str) -> ImpactForm:
    """Returns a form of impacts.

    Raises:
        UsageError: there is none of that name.
    """
    if form not in FORMS:
        raise unknown_name("form of impacts", form, FORMS)
    return form


@functools.cache
def decoder(form: ImpactForm) -> NDArray[np.float32]:
    """Returns the weight of each code; empty for float32, whose codes are the weights."""
    if form == "float32":
        table = np.empty(0, dtype=np.float32)
    elif form == "float16":
        with np.errstate(invalid="ignore"):
            table = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
    else:
        table = np.exp2((np.arange(256) - 255) / _OCTAVE + _TOP).astype(np.float32)
    table.flags.writeable = False
    return table


def encode_impacts(weights: NDArray[np.float32], form: ImpactForm) -> NDArray[Any]:
    """Returns the codes of weights, which are positive.

    Raises:
        SpectraError: a weight is too large for the form.
    """
    if form == "float32":
        return np.asarray(weights, dtype=np.float32)
    limit = 65_504.0 if form == "float16" else 2.0**_TOP
    if len(weights) and float(weights.max()) > limit:
        raise SpectraError(f"the weight {weights.max():g} is too large for {form} impacts. Use float32.")
    if form == "float16":
        return np.maximum(weights.astype(np.float16).view(np.uint16), np.uint16(1))
    steps = np.rint((np.log2(weights) - _TOP) * _OCTAVE) + 255
    return np.clip(steps, 0, 255).astype(np.uint8)


def decode_impacts(codes: NDArray[Any], form: ImpactForm) -> NDArray[np.float32]:
    """Returns the weights of codes."""
    return codes if form == "float32" else decoder(form)[codes]
