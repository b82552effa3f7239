"""Cut files of reference outputs to what the repository holds: the first clip, and of its output every second pixel.

Usage: python tools/cut_parity.py FOLDER

Weights and input stay as they are, so that what is compared is what the other code computed. What two megabytes have no
room for is left out.
"""

import argparse
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save

OUT = Path(__file__).parents[1] / "tests" / "parity"
STEP = 2
LEFT_OUT = ("PhyDNet", "PredRNN_reverse", "HorNet", "MLPMixer", "Moga", "Uniformer", "VAN", "ViT", "ConvNeXt")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="Of the whole files, which PLASM_PARITY names for the tests.")
    for file in sorted(parser.parse_args().folder.glob("*.safetensors")):
        if file.stem.endswith(LEFT_OUT):
            continue
        with safe_open(file, "pt") as stored:
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
            metadata = stored.metadata()
        tensors["input"] = tensors["input"][:1].clone()
        tensors["output"] = tensors["output"][:1, ..., ::STEP, ::STEP].contiguous()
        # save_file makes files that nobody else can read.
        (OUT / file.name).write_bytes(save(tensors, {**metadata, "step": str(STEP)}))


if __name__ == "__main__":
    main()
