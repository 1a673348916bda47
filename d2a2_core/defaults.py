"""Defaults that the command line shows. Imports nothing, so that `d2a2 COMMAND --help` need not load PyTorch."""

#: The weights of node, demo and command line: small enough for a CPU, trained on the noise and holes of real sensors.
DEFAULT_WEIGHTS = "d2a2-lite-sensor"
