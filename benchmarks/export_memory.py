"""The memory that an export takes, and that its runtime takes to load, as multiples of the weights.

    python benchmarks/export_memory.py [--layers 12] [--width 768] [--formats onnx onnx-int8]

Linux only. A model of BERT's shape with random weights and MiniLM's words. Each step has a process of its own: one that
imports the libraries and opens the model, one that also exports it, one that imports ONNX Runtime, one that also opens
the export. Peaks are of resident memory; what opening the model or the libraries takes is subtracted.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

STEPS = {
    "open": "import spectra_nsa as sp, torch, onnx, onnxscript, onnxruntime; sp.load(sys.argv[1])",
    "export": (
        "from spectra_nsa.workflows.export.run import export_model\n"
        "export_model(sys.argv[1], [sys.argv[2]], output=sys.argv[3], texts='python:stdlib', least_cosine=0.0)"
    ),
    "import": "import onnxruntime, numpy, spectra_nsa.runtime, tokenizers",
    "load": "from spectra_nsa.runtime import Runtime; Runtime(sys.argv[3], format=sys.argv[2])",
}
PEAK = (  # VmHWM begins anew with each program; the figure of getrusage does not
    "\nprint(next(int(line.split()[1]) for line in open('/proc/self/status') if line.startswith('VmHWM')) / 1024)"
)


def build(folder: Path, layers: int, width: int) -> float:
    """Saves the model, and returns the MB of its weights."""
    from transformers import AutoTokenizer, BertConfig, BertModel

    import spectra_nsa as sp
    from spectra_nsa.core.starter import starter_checkpoint

    tokenizer = AutoTokenizer.from_pretrained(starter_checkpoint()[0])
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=width, num_hidden_layers=layers, num_attention_heads=width // 64,
        intermediate_size=4 * width,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder / "bert")
    tokenizer.save_pretrained(folder / "bert")
    sp.warm_start(folder / "bert").save_pretrained(str(folder / "model"))
    return (folder / "model" / "model.safetensors").stat().st_size / 2**20


def peak(step: str, *arguments: object) -> float:
    """Returns the peak of a process, in MB."""
    script = f"import sys\n{STEPS[step]}{PEAK}"
    words = [sys.executable, "-c", script, *map(str, arguments)]
    return float(subprocess.run(words, check=True, capture_output=True, text=True).stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--formats", nargs="+", default=["onnx", "onnx-int8"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights = build(folder, options.layers, options.width)
        opened, imported = peak("open", folder / "model"), peak("import")
        print(
            f"weights {weights:,.0f} MB; opening the model {opened:,.0f} MB; importing the runtime {imported:,.0f} MB"
        )
        for form in options.formats:
            target = folder / form
            export = peak("export", folder / "model", form, target) - opened
            load = peak("load", folder / "model", form, target) - imported
            facts = json.loads((target / "export.json").read_text())["formats"][form]
            file = facts["bytes"] / 2**20
            print(
                f"{form}: the export {export:,.0f} MB, {export / weights:.2f} × the weights; loading {load:,.0f} MB, "
                f"{load / file:.2f} × its file of {file:,.0f} MB"
            )


if __name__ == "__main__":
    main()
