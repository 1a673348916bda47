"""`d2a2 bag`: reads a bag, upsamples its pairs one after another, and writes the bag again with the results in it.

In two passes, because a bag cannot be appended to: the first computes and puts each pair's outputs into a journal beside the
target, the second merges bag and journal into a new bag, which takes its name when it is whole. A run that was
interrupted goes on where the journal ends. Neither pass keeps more than a few images in memory.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from d2a2_core.bag import messages as msgs
from d2a2_core.bag.journal import Journal
from d2a2_core.bag.merge import OUTPUTS, merge, topic_of
from d2a2_core.bag.options import BagOptions, Summary
from d2a2_core.bag.pairing import ApproximatePairs
from d2a2_core.bag.pairs import BagHost, PairConverter
from d2a2_core.bag.storage import BagError, fingerprint, messages, open_bag, storage_of
from d2a2_core.bag.topics import INFO, BagTopics, choose_topics
from d2a2_core.files import replacing
from d2a2_core.geometry.transform_tree import TransformTree
from d2a2_core.messages.encodings import FrameError
from d2a2_core.stream import Engine

TF = "tf2_msgs/msg/TFMessage"
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
        target: a folder that does not exist yet; ``target``.partial beside it holds what an interrupted run had done.
        job: what else the results depend on (weights, settings), as JSON can hold it: a run goes on only with the same.
        progress: tqdm or alike.
        say: for one-line remarks on the way.

    Raises:
        BagError: the input cannot be used, or the target is in the way; the message says what to do.
    """
    if target.suffix in (".mcap", ".db3"):
        raise BagError(f"OUT is a folder, as rosbag2 makes them; expected a name without {target.suffix}, got {target}")
    partial = target.with_name(f"{target.name}.partial")
    with open_bag(source) as reader:
        job = _job(source, options, job)
        if target.exists():
            raise BagError(f"{target} exists already; remove it or choose another name")
        topics = choose_topics(reader, options.color, options.depth, options.color_info, options.depth_info)
        _refuse_own_topics(reader, options.prefix)
        say(topics.describe())
        with _journal(partial, job) as journal:
            summary = Summary()
            try:
                _compute(reader, topics, engine, options, journal, summary, progress)
                _require_results(summary, options)
            except BagError:
                if not summary.written:  # nothing is lost with it
                    shutil.rmtree(partial)
                raise
            with _bar(progress, reader.message_count, "message") as bar:
                storage = options.storage or storage_of(source)
                merge(reader, partial / target.name, journal, options.prefix, storage, bar.update)
            os.replace(partial / target.name, target)
        shutil.rmtree(partial)
    return summary


# -- first pass: compute ---------------------------------------------------------------------------------------------------


def _compute(
    reader: Any,
    topics: BagTopics,
    engine: Engine,
    options: BagOptions,
    journal: Journal,
    summary: Summary,
    progress: Any,
) -> None:
    for head in journal.recover():
        summary.resumed += 1
        _count(summary, head)
        state = head["state"]
    transforms = TransformTree() if options.extrinsics else _static(reader)
    converter = PairConverter(topics, engine, BagHost(transforms, options, summary), options)
    if summary.resumed:
        converter.stream.restore(state)
    converter.stream.last_stamp = summary.last_stamp
    total = min(sum(c.msgcount for c in image.connections) for image in (topics.color, topics.depth))
    with _bar(progress, total, "pair") as bar:
        for time, color, depth, infos in _pairs(reader, topics, options, summary):
            summary.pairs += 1
            if summary.pairs > summary.resumed:
                head, outputs = converter.outputs(color, depth, infos)
                head |= {"time": time, "state": converter.stream.state()}
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


def _pairs(reader: Any, topics: BagTopics, options: BagOptions, summary: Summary) -> Iterator[tuple]:
    """(bag time in ns, serialised colour, serialised depth, infos) of every pair within the time window.

    ``infos`` are the latest serialised camera infos of colour and depth, the first ones of the bag until one came.
    """
    names = {topics.color.topic: 0, topics.depth.topic: 1}
    info_names = {topics.color_info: 0, topics.depth_info: 1}
    info_connections = [c for c in reader.connections if c.msgtype == INFO and c.topic in info_names]
    infos = [_first(reader, [c for c in info_connections if info_names[c.topic] == i]) for i in (0, 1)]
    pairing = ApproximatePairs(options.slop, options.queue_size)
    first = reader.start_time
    start = first + int((options.start or 0.0) * 1e9)
    end = None if options.end is None else first + int(options.end * 1e9)
    for connection, time, raw in messages(
        reader, [*topics.color.connections, *topics.depth.connections, *info_connections]
    ):
        if connection.msgtype == INFO:
            infos[info_names[connection.topic]] = raw
            continue
        if time < start or (end is not None and time >= end):
            continue
        which = names[connection.topic]
        summary.color_images += which == 0
        summary.depth_images += which == 1
        try:
            stamp = msgs.stamp_ns(raw)
        except FrameError as error:
            summary.skip(error.code, f"{connection.topic}: {error}")
            continue
        pair = pairing.add(which, stamp, raw)
        if pair:
            yield time, *pair, tuple(infos)
    if not summary.pairs and pairing.nearest_ns is not None:
        summary.note(f"the nearest two stamps are {pairing.nearest_ns * 1e-9:.6f} s apart")


def _first(reader: Any, connections: list) -> bytes | None:
    return next((raw for _, _, raw in messages(reader, connections)), None) if connections else None


def _static(reader: Any) -> TransformTree:
    transforms = TransformTree()
    connections = [c for c in reader.connections if c.msgtype == TF and c.topic.endswith("tf_static")]
    for connection, _, raw in messages(reader, connections) if connections else ():
        with suppress(FrameError):
            for stamped in msgs.deserialize(raw, connection.msgtype).transforms:
                transforms.add(stamped)
    return transforms


def _require_results(summary: Summary, options: BagOptions) -> None:
    if summary.written:
        return
    counts = f"{summary.color_images} colour and {summary.depth_images} depth images"
    if summary.pairs:
        reasons = "; ".join(f"{message} ({summary.skipped[code]}x)" for code, message in summary.examples.items())
        raise BagError(f"none of the first {summary.pairs} pairs can be used: {reasons}")
    if not (summary.color_images and summary.depth_images):
        raise BagError(f"{counts} lie between --start and --end; nothing to pair")
    notes = "; ".join(summary.notes)
    raise BagError(
        f"no pairs: {counts}, but no two stamps within {options.slop} s ({notes}); are both cameras' clocks synchronised? "
        "--slop allows more"
    )


# -- around both -----------------------------------------------------------------------------------------------------------


def _job(source: Path, options: BagOptions, job: dict | None) -> dict:
    """Everything the results depend on, as JSON gives it back."""
    return json.loads(
        json.dumps({"format": _FORMAT, "bag": fingerprint(source), "options": asdict(options), "engine": job or {}})
    )


def _refuse_own_topics(reader: Any, prefix: str) -> None:
    ours = {topic_of(prefix, name) for name in OUTPUTS}
    taken = sorted(ours & {c.topic for c in reader.connections})
    if taken:
        raise BagError(f"the bag has {', '.join(taken)} already; choose another --prefix than {prefix}")


@contextmanager
def _journal(partial: Path, job: dict) -> Iterator[Journal]:
    """The journal of this very job in the folder ``partial``, for this process alone."""
    partial.mkdir(parents=True, exist_ok=True)
    journal = Journal(partial / "pairs.journal")
    try:
        journal.lock()
        path = partial / "job.json"
        if not path.exists():
            with replacing(path) as unfinished:
                unfinished.write_text(json.dumps(job))
        before = json.loads(path.read_text())
        if before != job:
            different = sorted(k for k in job["options"] if before["options"].get(k) != job["options"][k])
            different += [k for k in ("format", "bag", "engine") if before.get(k) != job[k]]
            raise BagError(
                f"{partial} holds an interrupted run with other settings ({', '.join(different)}); use the same again, or "
                "remove that folder"
            )
        yield journal
    finally:
        journal.close()


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
