"""The formats that a model can be exported to. Loads no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["onnx", "openvino", "torch"]


@dataclass(frozen=True, kw_only=True)
class Format:
    """A format.

    Attributes:
        file: the file of the model, below the folder of the export.
        kind: what runs it.
        says: what it is, in a few words.
        cosine: the least cosine to the original vectors that is accepted, of any text and output.
        invariant: whether a text must have the same vector in any batch.
    """

    file: str
    kind: Kind
    says: str
    cosine: float
    invariant: bool = True


# Names and places are those that transformers.js, Text Embeddings Inference, fastembed and sentence-transformers look
# for.
FORMATS: Mapping[str, Format] = {
    "onnx": Format(
        file="onnx/model.onnx", kind="onnx", says="ONNX with 32-bit weights, fused for ONNX Runtime", cosine=0.999_999
    ),
    "onnx-fp16": Format(
        file="onnx/model_fp16.onnx", kind="onnx", says="ONNX with 16-bit weights and arithmetic", cosine=0.999
    ),
    "onnx-int8": Format(
        file="onnx/model_quantized.onnx",
        kind="onnx",
        says="ONNX with 8-bit weights: small, and nearly exact",
        cosine=0.999,
    ),
    "onnx-int8-fast": Format(
        file="onnx/model_int8.onnx",
        kind="onnx",
        says="ONNX with 8-bit weights and activations: fast, but a vector depends on its batch",
        cosine=0.97,
        invariant=False,
    ),
    "onnx-int8-static": Format(
        file="onnx/model_int8_static.onnx",
        kind="onnx",
        says="ONNX with 8-bit weights and 16-bit states of fixed ranges (QDQ), for NPUs",
        cosine=0.99,
    ),
    "onnx-int4": Format(file="onnx/model_q4.onnx", kind="onnx", says="ONNX with 4-bit weights", cosine=0.99),
    "openvino": Format(
        file="openvino/openvino_model.xml", kind="openvino", says="OpenVINO with 32-bit weights", cosine=0.999_999
    ),
    "torch-export": Format(file="torch/model.pt2", kind="torch", says="a program of torch.export", cosine=0.999_999),
    "torchscript": Format(file="torch/model.ts", kind="torch", says="a TorchScript program", cosine=0.999_999),
}
