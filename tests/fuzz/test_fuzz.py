"""Damaged inputs through every reader; `python tests/fuzz/fuzzing.py --seed=1` runs 10,000 others."""

import collections

import fuzzing
import pytest


def check(cases: int, *, seed: int, workers: int) -> None:
    found = list(fuzzing.run(range(cases), seed=seed, workers=workers))
    wrong = [case for case in found if case["outcome"] not in ("read", "refused")]
    assert not wrong, wrong[:5]
    assert sorted(case["number"] for case in found) == list(range(cases))
    outcomes = collections.Counter(case["outcome"] for case in found)
    assert min(outcomes["read"], outcomes["refused"]) > cases / 10  # damage matters, and not all of it is fatal


def test_some_damaged_inputs() -> None:
    check(150, seed=0, workers=1)


@pytest.mark.slow
def test_ten_thousand_damaged_inputs() -> None:
    check(10_000, seed=1, workers=2)


def test_what_the_fuzzer_is_to_find_is_found(tmp_path) -> None:
    """Each outcome, from something that misbehaves so."""

    def outcome(use) -> str:
        return fuzzing.case(use, {"a.txt": b"1"}, tmp_path)["outcome"]

    def fails(error):
        def use(root):
            raise error

        return use

    fuzzing.watch()
    assert outcome(lambda root: (root / "a.txt").read_bytes()) == "read"
    assert outcome(fails(ValueError("a.txt: wrong"))) == "refused"
    assert outcome(fails(ValueError("a.txt: wrong\nvery"))) == "several lines"
    assert outcome(fails(ValueError("wrong"))) == "names no file"
    assert outcome(fails(KeyError("a.txt"))) == "traceback"
    assert outcome(fails(MemoryError())) == "memory"
    assert outcome(lambda root: (root / "b.txt").write_bytes(b"")) == "writes"
    assert outcome(lambda root: (tmp_path / "c.txt").mkdir()) == "writes"
    assert outcome(lambda root: __import__("subprocess").run(["true"], check=True)) == "runs"
