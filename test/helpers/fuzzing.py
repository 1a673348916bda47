"""How many damaged inputs a test tries."""

import os


def fuzz_count(usual: int) -> int:
    """The ``usual`` number, or D2A2_FUZZ, for runs that search longer."""
    return int(os.environ.get("D2A2_FUZZ", usual))
