"""Options that several verbs share."""

from typing import Literal

Precision = Literal["fp32", "bf16", "fp16", "auto"]
PRECISION = "What to compute in; auto: bf16 where the processor has it, several times as fast on a CPU."
