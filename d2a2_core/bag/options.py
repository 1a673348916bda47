"""What a user may choose of `d2a2 bag`, and what happened."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from d2a2_core.bag.storage import BagError
from d2a2_core.geometry import Extrinsics
from d2a2_core.stream import StreamOptions

_LONGEST = 1e9  # seconds, 30 years: in ns, sums with any stamp fit into 64 bits


@dataclass(frozen=True)
class BagOptions(StreamOptions):
    """The options of a stream, and these.

    Attributes:
        color, depth, color_info, depth_info: Topics; None guesses.
        slop: Largest difference of the stamps of a pair, seconds.
        prefix: Prefix of the topics that are added.
        storage: "mcap" or "sqlite3"; None as the input.
        cloud: Whether to add points too.
        start, end: Seconds from the bag's start between which pairs are upsampled; everything is copied all the same.
        calibration: File with the cameras and where they are, see :mod:`d2a2_core.geometry.rig`; what it holds comes before the
            bag's camera infos and transforms.
        extrinsics: Translation and quaternion x y z w from the depth to the colour camera, 7 numbers; comes before all else.

    Raises:
        BagError: A value that cannot be used.
    """

    color: str | None = None
    depth: str | None = None
    color_info: str | None = None
    depth_info: str | None = None
    slop: float = 0.015
    prefix: str = "/depth_upsampled"
    storage: str | None = None
    cloud: bool = False
    start: float | None = None
    end: float | None = None
    calibration: str | None = None
    extrinsics: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        try:
            super().__post_init__()
        except ValueError as error:
            raise BagError(str(error)) from error
        if not 0 <= self.slop <= _LONGEST:
            raise BagError(f"expected a slop of 0 to {_LONGEST:g} s, got {self.slop}")
        for name in ("start", "end"):
            if not abs(getattr(self, name) or 0.0) <= _LONGEST:
                raise BagError(f"expected {name} in seconds, at most {_LONGEST:g}, got {getattr(self, name)}")
        if self.extrinsics is not None:
            try:
                Extrinsics.from_values(list(self.extrinsics))
            except ValueError as error:
                raise BagError(f"extrinsics cannot be used: {error}") from error
        if not self.prefix.startswith("/"):
            raise BagError(f"prefix must start with '/', got {self.prefix!r}")


@dataclass
class Summary:
    """What happened.

    Attributes:
        pairs: Pairs of images found.
        written: Pairs upsampled.
        resumed: Pairs that an interrupted run had done.
        color_images, depth_images: Images between start and end.
        skipped: Number of pairs and images that could not be used, by code and detail.
        examples: One message for each of these.
        notes: What a user should know, each once.
        warned: Codes and details of the warnings among the notes.
        last_stamp: Stamp in ns of the newest result.
        unpaired: What to know where no images make a pair; empty where none of one kind can be read.
    """

    pairs: int = 0
    written: int = 0
    resumed: int = 0
    color_images: int = 0
    depth_images: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    warned: set[tuple[str, str]] = field(default_factory=set)
    last_stamp: int | None = None
    unpaired: str = ""

    def skip(self, code: str, message: str, detail: str = "") -> None:
        """Counts one more."""
        cause = f"{code} {detail}".strip()
        self.skipped[cause] += 1
        self.examples.setdefault(cause, message)

    def note(self, text: str) -> None:
        """Keeps a remark for the user, once."""
        if text not in self.notes:
            self.notes.append(text)

    def warn(self, code: str, message: str, detail: str = "") -> None:
        """Keeps the first warning of each code and detail."""
        if (code, detail) not in self.warned:
            self.warned.add((code, detail))
            self.note(message)
