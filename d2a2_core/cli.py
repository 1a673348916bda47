"""The command `d2a2`: lists its subcommands, imports the one that is called, and sets the exit status."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module

import yaml

# Subcommand: (its module in d2a2_core.commands, its line in `d2a2 --help`).
COMMANDS = {
    "upsample": ("frames", "upsample a folder recording, or one colour and one depth image"),
    "offset": ("frames", "measure the offset of colour to depth in a recording: an error of the calibration"),
    "bag": ("bag", "upsample a rosbag2: the same bag with depth_upsampled topics in it"),
    "benchmark": ("frames", "time and memory per frame on this machine"),
    "train": ("training", "train a network, or continue a run"),
    "ablate": ("training", "train and tabulate all rows of one of the paper's ablations"),
    "generate": ("training", "make scenes to train on, or continue a folder of them"),
    "prepare-nyu": ("training", "unpack nyu_depth_v2_labeled.mat into the authors' folder layout"),
    "calibrate": ("calibration", "train and check the uncertainty head of weights"),
    "int8": ("calibration", "measure the ranges that weights need to be computed in int8"),
    "evaluate": ("evaluation", "measure a method or weights on a benchmark set"),
    "report": ("evaluation", "make one HTML page of one or several evaluations"),
    "weights": ("weights", "list, describe, verify, mix or prune weights; add a run's to the shipped ones"),
    "convert": ("weights", "turn an authors' .pth checkpoint into .safetensors, or back"),
    "export": ("weights", "write the network as an ONNX file, which upsample, bag and node take as weights"),
}


# What is the fault of a user, a file or the machine, and told in one line: whoever reads a file checks what is in it and raises
# one of the first two, and libraries report a full disk, a device or memory as the others. All else is ours: a traceback.
FORESEEN = (ValueError, OSError, RuntimeError, ImportError, MemoryError, yaml.YAMLError)


def main(arguments: list[str] | None = None) -> int:
    """Runs one subcommand; returns the exit status: 2 for a user's mistake, with one line that says what to do."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _parser(arguments).parse_args(arguments)
    try:
        return options.run(options) or 0
    except BrokenPipeError:  # whoever read the output has seen enough, as `head` does
        return 0
    except FORESEEN as error:
        if isinstance(error, ImportError) and (error.name or "").startswith("d2a2_core"):
            raise
        said = " ".join(str(error).split()) or type(error).__name__
        print(f"d2a2 {options.command}: {said}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _parser(arguments: list[str]) -> argparse.ArgumentParser:
    """A parser that knows all subcommands by name, and the options of the one that ``arguments`` call."""
    parser = argparse.ArgumentParser(prog="d2a2", description="RGB-guided depth super-resolution with D2A2.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    called = next((a for a in arguments if not a.startswith("-")), None)
    for name, (module, line) in COMMANDS.items():
        p = commands.add_parser(name, help=line, description=line)
        if name == called:
            add_options, run = import_module(f"d2a2_core.commands.{module}").COMMANDS[name]
            add_options(p)
            p.set_defaults(run=run)
    return parser


if __name__ == "__main__":
    sys.exit(main())
