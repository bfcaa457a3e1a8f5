"""The log of a run: what damage, kills and full disks leave of it."""

import errno
import json
from pathlib import Path

import jax.numpy as jnp
import pytest

from jaxpose.train import log as logs
from jaxpose.train.log import LateMetrics, MetricLog, read_metrics


def write_lines(workdir: Path, count: int, *, resume_at: int = 0) -> list[bytes]:
    log = MetricLog(workdir, resume_at=resume_at)
    for step in range(resume_at + 1, count + 1):
        log.write("adapt", step, step, {"loss/source": 1 / step, "accuracy": float("nan")})
    log.close()
    return (workdir / "metrics.jsonl").read_bytes().splitlines(keepends=True)


DAMAGE = {
    "not JSON": b'{"stage": "adapt", "st\n',
    "not UTF-8": b'{"stage": "ad\xffpt", "step": 3, "total_step": 3}\n',
    "not an object": b"3\n",
    "no step": b'{"stage": "adapt", "total_step": 3}\n',
    "another kind": b'{"stage": "adapt", "step": 3, "total_step": "3"}\n',
    "a value that is none": b'{"stage": "adapt", "step": 3, "total_step": 3, "loss": [1]}\n',
    "nested for ever": b"[" * 100_000 + b"\n",
}


@pytest.mark.parametrize("bad", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_bad_line_costs_that_line_only(tmp_path: Path, bad: bytes) -> None:
    lines = write_lines(tmp_path, 5)
    (tmp_path / "metrics.jsonl").write_bytes(b"".join([*lines[:2], bad, *lines[3:]]))
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2, 4, 5]
    after = write_lines(tmp_path, 6, resume_at=5)
    assert after[:4] == [*lines[:2], *lines[3:]]
    assert json.loads(after[4])["step"] == 6


@pytest.mark.parametrize("cut", [1, 20])
def test_a_torn_tail_is_healed_when_the_run_goes_on(tmp_path: Path, cut: int) -> None:
    whole = b"".join(write_lines(tmp_path, 6))
    (tmp_path / "metrics.jsonl").write_bytes(whole[:-cut])
    kept = 6 if cut == 1 else 5  # of the line without its end only the end is missing
    assert len(read_metrics(tmp_path)) == kept
    assert b"".join(write_lines(tmp_path, 6, resume_at=kept)) == whole


def test_lines_that_the_run_writes_again_are_dropped(tmp_path: Path) -> None:
    whole = write_lines(tmp_path, 6)
    MetricLog(tmp_path, resume_at=4).close()
    assert (tmp_path / "metrics.jsonl").read_bytes() == b"".join(whole[:4])
    assert write_lines(tmp_path, 6, resume_at=4) == whole


def test_a_line_is_appended_in_one_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[bytes] = []
    real = logs.os.write
    monkeypatch.setattr(logs.os, "write", lambda file, data: written.append(data) or real(file, data))
    assert write_lines(tmp_path, 3) == written


def test_a_full_disk_is_named_with_the_file(tmp_path: Path) -> None:
    log = MetricLog(tmp_path, resume_at=0)
    with open("/dev/full", "wb") as full:
        logs.os.dup2(full.fileno(), log._file)
        with pytest.raises(OSError, match=r"No space left on device: .*metrics\.jsonl") as raised:
            log.write("adapt", 1, 1, {"loss": 1.0})
    assert raised.value.errno == errno.ENOSPC
    log.close()


def test_a_window_that_was_saved_goes_on(tmp_path: Path) -> None:
    def train(workdir: Path, *, stop_at: int | None) -> bytes:
        workdir.mkdir()
        window: logs.LogWindow = []
        log = MetricLog(workdir, resume_at=0)
        late = LateMetrics(log, "adapt", 0, window)
        for step in range(1, 8):
            late.take(step, {"loss": jnp.asarray(1 / step)})
            if step % 3 == 0:
                late.flush()
            if step == stop_at:
                late.fetch()
                window = json.loads(json.dumps(window))
                log.close()
                log = MetricLog(workdir, resume_at=step)
                late = LateMetrics(log, "adapt", 0, window)
        late.flush()
        log.close()
        return (workdir / "metrics.jsonl").read_bytes()

    whole = train(tmp_path / "whole", stop_at=None)
    for stop_at in range(1, 7):
        assert train(tmp_path / str(stop_at), stop_at=stop_at) == whole
