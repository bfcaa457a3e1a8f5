"""A work directory is used by one process at a time, and knows the data that its run began with."""

import contextlib
import datetime
import errno
import fcntl
import json
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jaxpose import untrusted
from jaxpose.data.domains import OpenedPair
from jaxpose.data.host.cache import files_of, labels_of
from jaxpose.train import mesh as meshes
from jaxpose.train.checkpoint import naming, write_json


class InUseError(Exception):
    """Another process uses the work directory; the same command goes on when that has ended."""


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Keeps other runs off a work directory, which is made if it is absent.

    The kernel keeps the lock, on NFS the server does, and both let go of it when its holder dies, however that happens.
    On file systems without locks there is none. Of several processes of a run the first one takes it for all.

    Raises:
      InUseError: on all of them, naming who holds it: host, process and since when.
    """
    lock: list[int] = []

    def take() -> str | None:
        workdir.mkdir(parents=True, exist_ok=True)
        lock.append(os.open(workdir / "lock", os.O_RDWR | os.O_CREAT, 0o666))
        with naming(workdir / "lock"):
            return _take(lock[0])

    try:
        holder = meshes.from_first_process(take)
        if holder is not None:
            raise InUseError(f"{workdir}: found it in use by {holder}; wait for that or choose another --workdir")
        yield
    finally:
        for file in lock:
            os.close(file)


def data_changes(workdir: Path, pair: OpenedPair, *, root: str, cache: str | None) -> list[str]:
    """What changed in the data between the parts of a run, in a line per change, of all parts so far.

    `data.json` holds what the data were: for each domain the files that are read, by name and size, and for each split
    the number of records and a digest of their labels.

    Returns:
      Earlier changes first; those that are new are the ones that `data.json` did not hold.
    """
    ignored = [str(workdir)] if cache is None else [str(workdir), cache]
    current = {}
    for name, domain in pair.domains.items():
        source = domain.splits["train"].source
        current[name] = {
            "files": files_of(domain.spec, root=root, source=source, leave_out=ignored, times=False),
            "splits": {
                split: {"records": len(part.source), "labels": labels_of(part.source)}
                for split, part in domain.splits.items()
            },
        }
    path, changes = workdir / "data.json", []
    if path.exists():
        try:
            known = untrusted.read_json(path, dict, "what the data of the run were")
            changes = [*known["changes"], *_differences(known["domains"], current)]
        except (ValueError, TypeError, KeyError, AttributeError):
            changes = [f"{path}: found it damaged, so whether the data changed is not known"]
    write_json(path, {"domains": current, "changes": changes})
    return changes


_WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


def _take(file: int) -> str | None:
    """Takes a lock and writes who has it, or returns who else has."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return _holder(os.pread(file, 4096, 0))
    except OSError as error:
        if error.errno not in _WITHOUT_LOCKS:
            raise
    now = datetime.datetime.now().astimezone().isoformat(" ", "seconds")
    os.ftruncate(file, 0)
    os.pwrite(file, json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "since": now}).encode(), 0)
    return None


def _holder(written: bytes) -> str:
    try:
        known = json.loads(written)
        return f"process {int(known['pid'])} on {known['host']} since {known['since']}"
    except (ValueError, TypeError, KeyError):  # it has not yet written who it is
        return "another process"


def _differences(known: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    lines = []
    for domain in current.keys() & known.keys():
        before, now = known[domain], current[domain]
        parts = []
        for split in {**before["splits"], **now["splits"]}:
            old, new = before["splits"].get(split), now["splits"].get(split)
            if old is None or new is None or old["records"] != new["records"]:
                parts.append(f"{new['records'] if new else 0} {split} records, {old['records'] if old else 0} before")
            elif old["labels"] != new["labels"]:
                parts.append(f"other labels of the {split} records")
        for name in {**before["files"], **now["files"]}:
            old, new = before["files"].get(name, [0, 0, ""]), now["files"].get(name, [0, 0, ""])
            if old[:2] != new[:2]:
                parts.append(f"{name}: {new[0]} files of {new[1]} bytes, {old[0]} of {old[1]} before")
            elif old != new:
                parts.append(f"{name}: {new[0]} files with other names or sizes")
        if parts:
            lines.append(f"The data of {domain} changed since an earlier part of this run: {'; '.join(parts)}")
    return sorted(lines)
