"""The command `d2a2`: which subcommands it has, and how it ends."""

from __future__ import annotations

import argparse
import sys

import yaml

from d2a2_core.commands import evaluation, frames, training, weights


def main(arguments: list[str] | None = None) -> int:
    """Runs one subcommand; returns the exit status: 2 for a user's mistake, with one line that says what to do."""
    options = _parser().parse_args(arguments)
    try:
        return options.run(options) or 0
    except BrokenPipeError:  # whoever read the output has seen enough, as `head` does
        return 0
    except (ValueError, OSError, RuntimeError, ImportError, yaml.YAMLError) as error:
        print(f"d2a2 {options.command}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="d2a2", description="RGB-guided depth super-resolution with D2A2.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in (frames, training, evaluation, weights):
        module.add_to(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
