"""Kinds of damage to a tree of files; every one is a function of the tree and a generator of random numbers."""

import csv
import io
import json
import random
import re
import tarfile
import zipfile
from collections.abc import Callable
from typing import Any

NUMBERS = ["0", "-1", "nan", "NaN", "inf", "-Infinity", "1e39", "1e999", "9" * 20, "9" * 5000, "-1e-320", "0x10", "1_0"]
STRANGE = [*NUMBERS, "true", "null", "[]", "[1]", "{}", "x", '"a"', "../../x", "/etc/passwd", "", "\0", "\n", "é"]
STRANGE.append("[" * 2000)
PIPE, DEVICE, LOOP, FOLDER = b"a pipe", b"a device", b"a link to the folder above", b"a folder"  # in place of a file
CANARY = "canary"  # a module that can be imported and must not be


def damaged(tree: dict[str, bytes], rng: random.Random, names: list[str]) -> dict[str, bytes]:
    """The tree with one to three kinds of damage, most of it to `names`."""
    found = dict(tree)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        kind = rng.choices(["content", "whole", "name"], [90, 5, 5])[0]
        present = [name for name in names if name in found] or sorted(found)
        if not present:
            break
        name = rng.choice(present)
        if kind == "content":
            found[name] = content(found[name], name, rng)
        elif kind == "whole":
            others = [b"", b"\0" * 100, hostile_pickle(), rng.choice(sorted(found.values()))]
            found[name] = rng.choice([*others, PIPE, DEVICE, LOOP, FOLDER])
        else:
            data = found.pop(name)
            if rng.random() < 0.7:
                found[odd_name(name, rng)] = data
    return found


def content(data: bytes, name: str, rng: random.Random) -> bytes:
    """The bytes with one kind of damage, inside its container if it is one."""
    kinds: list[Callable[[bytes, random.Random], bytes]] = [flips, cut, deleted, doubled, inserted, overwritten]
    suffix = name.rpartition(".")[2].lower()
    if rng.random() < 0.75:
        if data.startswith(b"PK"):
            return in_zip(data, rng)
        if suffix == "tar":
            return in_tar(data, rng)
        if suffix == "json":
            kinds = [in_json, in_json, in_json, numbers, tokens]
        elif suffix == "csv":
            kinds = [in_csv, in_csv, numbers, tokens, lines]
        elif suffix in ("toml", "bvh", "asf", "amc", "yaml", "txt"):
            kinds = [numbers, tokens, lines]
        elif data[:1] == b"\x80" or suffix in ("pkl", "pickle"):
            kinds = [renamed, flips, deleted, doubled, numbers]
        elif data.startswith(b"\x89HDF"):
            kinds = [flips, overwritten]
    return rng.choice(kinds)(data, rng)


def flips(data: bytes, rng: random.Random) -> bytes:
    """Some bits turned, all in one place or anywhere."""
    found = bytearray(data or b"\0")
    start = rng.randrange(len(found))
    near = rng.random() < 0.3
    for _ in range(rng.choice([1, 1, 2, 8, 40])):
        place = min(start + rng.randrange(64), len(found) - 1) if near else rng.randrange(len(found))
        found[place] ^= 1 << rng.randrange(8)
    return bytes(found)


def cut(data: bytes, rng: random.Random) -> bytes:
    """The start or the end."""
    place = rng.randrange(len(data) + 1)
    return data[:place] if rng.random() < 0.8 else data[place:]


def span(data: Any, rng: random.Random) -> tuple[int, int]:
    """A start and a stop."""
    start = rng.randrange(len(data) + 1)
    return start, min(len(data), start + rng.choice([1, 4, 40, 1000]))


def deleted(data: bytes, rng: random.Random) -> bytes:
    """Without a span."""
    start, stop = span(data, rng)
    return data[:start] + data[stop:]


def doubled(data: bytes, rng: random.Random) -> bytes:
    """With a span several times."""
    start, stop = span(data, rng)
    return data[:start] + data[start:stop] * rng.choice([2, 2, 10, 1000]) + data[stop:]


def inserted(data: bytes, rng: random.Random) -> bytes:
    """With bytes that are none of it."""
    start, _ = span(data, rng)
    new = rng.choice([b"\0", b"\n", b"\xff\xfe", b"{", b'"', b",", b"\xff" * 8, rng.choice(STRANGE).encode()])
    return data[:start] + new + data[start:]


def overwritten(data: bytes, rng: random.Random) -> bytes:
    """With a span of one value: small numbers, the largest, powers of two."""
    start, stop = span(data, rng)
    return data[:start] + rng.choice([b"\0", b"\xff", b"\x7f", b"\x80", b"\x01"]) * (stop - start) + data[stop:]


def numbers(data: bytes, rng: random.Random) -> bytes:
    """One or all numbers replaced, or their decimal points moved."""
    spans = [match.span() for match in re.finditer(rb"-?\d+(\.\d+)?", data)]
    if not spans:
        return flips(data, rng)
    first, last = rng.choice(spans)
    number = data[first:last]
    new = rng.choice([*(text.encode() for text in NUMBERS), b"-" + number, number + b"000000", b"0.00000" + number])
    if rng.random() < 0.1:
        return data.replace(number, new)
    return data[:first] + new + data[last:]


def tokens(data: bytes, rng: random.Random) -> bytes:
    """Two words or marks exchanged, one left out, doubled, or another one."""
    parts = re.split(rb"([\s,:;\[\]{}\"=]+)", data)
    i, j = (rng.randrange(len(parts)) for _ in range(2))
    kind = rng.randrange(4)
    if kind == 0:
        parts[i], parts[j] = parts[j], parts[i]
    elif kind == 1:
        parts[i] = b""
    elif kind == 2:
        parts[i] *= rng.choice([2, 100])
    else:
        parts[i] = rng.choice(STRANGE).encode()
    return b"".join(parts)


def lines(data: bytes, rng: random.Random) -> bytes:
    """Lines exchanged, left out or repeated."""
    rows = data.split(b"\n")
    i, j = (rng.randrange(len(rows)) for _ in range(2))
    kind = rng.randrange(3)
    if kind == 0:
        rows[i], rows[j] = rows[j], rows[i]
    elif kind == 1:
        del rows[min(i, j) : max(i, j) + 1]
    else:
        rows[i:i] = [rows[j]] * rng.choice([1, 50])
    return b"\n".join(rows)


def in_json(data: bytes, rng: random.Random) -> bytes:
    """A value replaced, left out, repeated, nested, or exchanged with another one."""
    try:
        whole = [json.loads(data)]
    except (ValueError, RecursionError):
        return tokens(data, rng)
    places = list(_places(whole))
    holder, key = rng.choice(places)
    other, other_key = rng.choice(places)
    kind = rng.randrange(6)
    if kind == 0:
        holder[key] = rng.choice(_VALUES)
    elif kind == 1 and holder is not whole:
        del holder[key]
    elif kind == 2 and isinstance(holder, list):
        holder[key:key] = [holder[key]] * rng.choice([1, 30])
    elif kind == 3:
        holder[key] = [holder[key]]
    elif kind == 4 and isinstance(holder, dict):
        holder[rng.choice(STRANGE)] = holder.pop(key)
    else:
        holder[key] = json.loads(json.dumps(other[other_key]))
    text = json.dumps(whole[0] if whole else None)
    return text.replace(json.dumps(_DEEP), "[" * 5000 + "]" * 5000).encode()


_DEEP = "a list in a list"
_VALUES: list[Any] = [None, True, -1, 0, 1.5, 1e300, float("nan"), float("inf"), 2**63, 10**400, 2**61 - 1]
_VALUES += [
    "",
    "x",
    "../../x",
    "/dev/zero",
    f"{CANARY}.Feature",
    "a\nb",
    "\udcff",
    [],
    {},
    [[]],
    [1, 2],
    {"a": 1},
    _DEEP,
]


def _places(value: Any) -> Any:
    """Every container with every key, outermost first."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in list(items):
        yield value, key
        yield from _places(below)


def in_csv(data: bytes, rng: random.Random) -> bytes:
    """A cell replaced, a column or a row left out, doubled or exchanged."""
    try:
        rows = list(csv.reader(io.StringIO(data.decode())))
    except (ValueError, csv.Error):
        return tokens(data, rng)
    rows = [row for row in rows if row] or [["x"]]
    row = rng.choice(rows)
    i, j = (rng.randrange(len(row)) for _ in range(2))
    kind = rng.randrange(5)
    if kind == 0:
        row[i] = rng.choice(STRANGE)
    elif kind == 1:
        for each in rows:
            del each[i : i + 1]
    elif kind == 2:
        for each in rows:
            each[i:i] = each[j : j + 1] * rng.choice([1, 40])
    elif kind == 3:
        row[i], row[j] = row[j], row[i]
    else:
        rows[:0] = [list(row)]
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode(errors="surrogateescape")


def in_zip(data: bytes, rng: random.Random) -> bytes:
    """A member damaged, whose checksum is right again, left out, or one that takes its place."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
    except Exception:
        return flips(data, rng)
    name = rng.choice(sorted(members) or ["x"])
    kind = rng.randrange(12)
    if kind == 0:
        members.pop(name, None)
    elif kind == 1:
        members[name] = bytes(2**27)
    elif kind == 2:
        members[name] = hostile_pickle()
    elif members:
        whole = members[name]
        where = whole.index(b"\n") + 1 if whole.startswith(b"\x93NUMPY") and b"\n" in whole and kind > 6 else 0
        change = rng.choice([flips, deleted, doubled, overwritten, numbers, renamed, cut])
        members[name] = whole[:where] + change(whole[where:], rng)
    return zipped(members, zipfile.ZIP_DEFLATED if kind == 1 else zipfile.ZIP_STORED)


def zipped(members: dict[str, bytes], compression: int) -> bytes:
    """An archive."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression, compresslevel=1) as archive:
        for name, member in members.items():
            archive.writestr(name, member)
    return stream.getvalue()


def in_tar(data: bytes, rng: random.Random) -> bytes:
    """A header with a right checksum and a wrong field, or a member damaged."""
    if rng.random() < 0.5:
        found = bytearray(data)
        headers = [at for at in range(0, len(found) - 511, 512) if found[at + 257 : at + 262] == b"ustar"]
        if headers:
            at = rng.choice(headers)
            first, last = rng.choice([(0, 100), (124, 136), (156, 157), (157, 257)])
            found[at + first : at + last] = flips(bytes(found[at + first : at + last]), rng)
            found[at + 148 : at + 156] = b" " * 8
            found[at + 148 : at + 156] = b"%06o\0 " % sum(found[at : at + 512])
            return bytes(found)
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            members = {m.name: archive.extractfile(m).read() for m in archive if m.isreg()}
    except Exception:
        return flips(data, rng)
    name = rng.choice(sorted(members) or ["x"])
    members[name] = content(members.get(name, b""), name, rng)
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for each, member in members.items():
            info = tarfile.TarInfo(each)
            info.size = len(member)
            archive.addfile(info, io.BytesIO(member))
    return stream.getvalue()


def renamed(data: bytes, rng: random.Random) -> bytes:
    """A name in a pickle that means a module that can be imported."""
    names = re.findall(rb"(?:numpy|torch|collections|argparse|_codecs|copy_?reg|builtins)[\w.]*", data)
    if not names:
        return flips(data, rng)
    name = rng.choice(names)
    if rng.random() < 0.5 and len(name) >= len(CANARY):  # of the same length, as later protocols state it
        return data.replace(name, f"{CANARY}{'.' * (len(name) - len(CANARY))}".encode()[: len(name)], 1)
    return data.replace(name, rng.choice([CANARY.encode(), b"os", b"builtins"]), 1)


def hostile_pickle() -> bytes:
    """Imports the canary and calls it."""
    return f"c{CANARY}\nrun\n(tR.".encode()


def odd_name(name: str, rng: random.Random) -> str:
    """Another name in the same folder."""
    folder, _, base = name.rpartition("/")
    stem, dot, suffix = base.rpartition(".")
    odd = rng.choice([f"{stem}\udcff{dot}{suffix}", f"{stem}\n{dot}{suffix}", f"{base}.bak", f"é{base}", "x" * 250])
    return f"{folder}/{odd}" if folder else odd
