"""`d2a2 bag`: reads a bag, upsamples its pairs one after another, and writes the bag again with the results in it.

First the stamps of all images are read and paired. Then the pairs are computed in order of their stamps, and each pair's outputs
go into a journal beside the target, because a bag cannot be appended to. At last bag and journal are merged into a new bag, which
takes its name when it is whole. A run that was interrupted goes on where the journal ends. No more than a few images are ever in
memory.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from d2a2_core.bag.journal import Journal
from d2a2_core.bag.merge import OUTPUTS, merge, topic_of
from d2a2_core.bag.options import BagOptions, Summary
from d2a2_core.bag.pairing import BagPairs
from d2a2_core.bag.pairs import BagHost, PairConverter
from d2a2_core.bag.partial import PartialFolder
from d2a2_core.bag.source import BagSource, open_bag
from d2a2_core.bag.storage import BagError, check_target
from d2a2_core.bag.topics import BagTopics, choose_topics
from d2a2_core.bag.transforms import BagTransforms
from d2a2_core.documents import read_json
from d2a2_core.geometry import Extrinsics
from d2a2_core.geometry.rig import CameraRig
from d2a2_core.stream import Engine

_FORMAT = 3  # of the journal's headers
_HOPELESS = 20  # so many unusable pairs and none usable: more will not help


def upsample_bag(
    source: Path,
    target: Path,
    engine: Engine,
    options: BagOptions,
    job: dict | None = None,
    progress: Callable[..., Any] | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Summary:
    """Writes the bag ``source`` again as the folder ``target``, with upsampled topics.

    Args:
        source: rosbag2 folder, or an .mcap or .db3 file.
        target: A folder that does not exist yet; ``target``.partial beside it holds what an interrupted run had done.
        job: What else the results depend on (weights, settings), as JSON can hold it: a run goes on only with the same.
        progress: tqdm or alike.
        say: For one-line remarks on the way.

    Raises:
        BagError: The input cannot be used, the target is in the way or cannot be written; the message says what to do.
        CalibrationError: The calibration file cannot be used.
    """
    if target.suffix in (".mcap", ".db3"):
        raise BagError(f"OUT is a folder, as rosbag2 makes them; expected a name without {target.suffix}, got {target}")
    rig = CameraRig() if options.calibration is None else CameraRig.read(options.calibration)
    with open_bag(source) as bag:
        if os.path.lexists(target):
            raise BagError(f"{target} exists already; remove it or choose another name")
        storage = options.storage or bag.layout.storage
        partial, summary = PartialFolder(target), Summary(notes=list(bag.notes))
        check_target(partial.bag, storage)
        try:
            topics = choose_topics(bag, options.color, options.depth, options.color_info, options.depth_info)
        except BagError as error:
            raise BagError("; ".join((str(error), *bag.notes))) from error
        _refuse_own_topics(bag, options.prefix)
        say(topics.describe())
        with _writing(partial.path), partial.claim(_job(bag, options, job)) as journal:
            try:
                _compute(bag, topics, rig, engine, options, partial, journal, summary, progress)
                _require_results(summary, options)
            except BagError:
                if not summary.written:  # nothing is lost with it
                    partial.remove()
                raise
            partial.remove_bag()
            with _bar(progress, len(bag), "message") as bar:
                merge(bag, partial.bag, journal, options.prefix, storage, bar.update)
            os.replace(partial.bag, target)
        try:
            partial.remove()
        except BagError as error:  # the result is whole all the same
            summary.note(str(error))
    return summary


# -- compute ---------------------------------------------------------------------------------------------------------------


def _compute(
    bag: BagSource,
    topics: BagTopics,
    rig: CameraRig,
    engine: Engine,
    options: BagOptions,
    partial: PartialFolder,
    journal: Journal,
    summary: Summary,
    progress: Any,
) -> None:
    for head in journal.recover():
        summary.resumed += 1
        _count(summary, head)
        state = head["state"]
    fixed = rig.extrinsics if options.extrinsics is None else Extrinsics.from_values(list(options.extrinsics))
    for code, message in rig.doubts:
        summary.warn(code, message)
    host = BagHost(BagTransforms(bag, summary.note), fixed, summary)
    converter = PairConverter(topics, engine, host, options)
    if summary.resumed:
        converter.stream.restore(state)
        if options.temporal != "off":
            converter.stream.restore_memory(partial.memory(summary.resumed))
    converter.stream.last_stamp = summary.last_stamp
    pairs = BagPairs(bag, topics, rig, options, summary)
    with _bar(progress, len(pairs), "pair") as bar:
        for number in range(len(pairs)):
            summary.pairs += 1
            if summary.pairs > summary.resumed:
                pair = pairs[number]
                head, outputs = converter.outputs(pair.color, pair.depth, pair.infos)
                head |= {"time": pair.time, "state": converter.stream.state()}
                if options.temporal != "off":
                    # Before the journal says that the pair is done.
                    partial.keep_memory(summary.pairs, converter.stream.memory())
                journal.append(head, outputs)
                _count(summary, head)
            bar.update()
            if not summary.written and summary.pairs == _HOPELESS:
                break


def _count(summary: Summary, head: dict) -> None:
    if head["code"]:
        summary.skip(head["code"], head["message"], head["detail"])
    else:
        summary.written += 1
        summary.last_stamp = head["stamp"]


def _require_results(summary: Summary, options: BagOptions) -> None:
    if summary.written:
        return
    counts = f"{summary.color_images} colour and {summary.depth_images} depth images"
    reasons = "; ".join(f"{message} ({summary.skipped[code]}x)" for code, message in summary.examples.items())
    if summary.pairs:
        raise BagError(f"none of the first {summary.pairs} pairs can be used: {reasons}")
    if not (summary.color_images and summary.depth_images):
        raise BagError(f"{counts} lie between --start and --end; {summary.unpaired}")
    if not summary.unpaired:
        raise BagError(f"no pairs: of {counts}, none of one kind can be read: {reasons}")
    raise BagError(f"no pairs: {counts}, but no two stamps within {options.slop} s; {summary.unpaired}")


# -- around it -------------------------------------------------------------------------------------------------------------


def _job(bag: BagSource, options: BagOptions, job: dict | None) -> dict:
    """Everything the results depend on, as JSON gives it back."""
    chosen = asdict(options)
    if options.calibration is not None:
        chosen["calibration"] = read_json(options.calibration)
    everything = {"format": _FORMAT, "bag": bag.layout.fingerprint, "options": chosen, "engine": job or {}}
    return json.loads(json.dumps(everything))


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Tells what to do where ``folder`` cannot be written; what is read raises a BagError of its own."""
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        raise BagError(
            f"{folder} cannot be written ({error}); make room, or see that you may write there, and give the same command again: "
            "it goes on where it stopped"
        ) from error


def _refuse_own_topics(source: BagSource, prefix: str) -> None:
    ours = {topic_of(prefix, name) for name in OUTPUTS}
    taken = sorted(ours & {c.topic for c in source.connections})
    if taken:
        raise BagError(f"the bag has {', '.join(taken)} already; choose another --prefix than {prefix}")


@contextmanager
def _bar(progress: Callable[..., Any] | None, total: int, unit: str) -> Iterator[Any]:
    if progress is None:
        progress = _NoBar
    with progress(total=total, unit=unit) as bar:
        yield bar


class _NoBar:
    def __init__(self, **_: Any) -> None:
        pass

    def __enter__(self) -> _NoBar:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self) -> None:
        """Shows nothing."""
