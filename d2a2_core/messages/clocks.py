"""What the stamps of two cameras tell of their clocks, where no two of them make a pair."""

from __future__ import annotations

_NEAR = 0.2  # seconds; so far apart are the images of cameras that run freely
_TIME_OF_DAY = 1_000_000_000  # seconds since 1970, in 2001; clocks that count from their start are far below
_NS = 1e-9


def clock_advice(color: int, depth: int, nearest: int, option: str) -> str:
    """Says how far apart the stamps are, and what to do about it.

    Args:
        color, depth: A stamp of each camera, of about the same moment, ns.
        nearest: Smallest difference of a colour and a depth image's stamps, ns.
        option: Name of the largest difference that a user can set.
    """
    apart = f"the nearest two stamps are {nearest * _NS:.6f} s apart"
    stamps = {"colour": color * _NS, "depth": depth * _NS}
    if nearest * _NS < _NEAR:
        return f"{apart}; a larger {option} pairs them, if these images are of the same moment"
    without = [name for name, seconds in stamps.items() if seconds < _TIME_OF_DAY]
    if len(without) == 1:
        (own,) = without
        (other,) = stamps.keys() - without
        return (
            f"{apart}; {own} is stamped {stamps[own]:.3f} s, which is no time of day as that of {other}: its driver takes the "
            "camera's or a simulation's clock, or sets no stamp; set both drivers to the same clock"
        )
    return f"{apart}; depth's are {stamps['depth'] - stamps['colour']:+.3f} s after colour's: are both clocks synchronised?"
