"""`--mode=compile`, and what it reads in compiled programs."""

import dataclasses
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
from platforms import abstract_mesh
from test_trainer import make_run, with_two_updates

from jaxpose.data.records import Note
from jaxpose.report import compilation
from jaxpose.train import build, hlo, modes, topologies
from jaxpose.train import compile as compiling
from jaxpose.train.run import Program

PROGRAM = """HloModule jit_f, is_scheduled=true

%fused_slice (param_0: bf16[64,256], param_1: f32[64]) -> f32[1,256] {
  %param_0 = bf16[64,256]{1,0} parameter(0)
  %param_1 = f32[64]{0} parameter(1)
  %wide = f32[64,256]{1,0} convert(%param_0)
  ROOT %row = f32[1,256]{1,0} slice(%wide), slice={[3:4], [0:256]}
}

%fused_dot (p0: bf16[128,64], p1: bf16[64,32]) -> bf16[128,32] {
  %p0 = bf16[128,64]{1,0} parameter(0)
  %p1 = bf16[64,32]{1,0} parameter(1)
  ROOT %dot.1 = bf16[128,32]{1,0} dot(%p0, %p1), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

%body (state: (s32[], f32[8])) -> (s32[], f32[8]) {
  %state = (s32[], f32[8]{0}) parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  %v = f32[8]{0} get-tuple-element(%state), index=1
  %twice = f32[8]{0} add(%v, %v)
  ROOT %next = (s32[], f32[8]{0}) tuple(%i, %twice)
}

ENTRY %main (x: bf16[2,8,8,16], k: bf16[32,3,3,16], a: bf16[128,64], b: bf16[64,32], s: bf16[64,256]) -> f32[1,256] {
  %x = bf16[2,8,8,16]{3,2,1,0} parameter(0)
  %k = bf16[32,3,3,16]{3,2,1,0} parameter(1)
  %a = bf16[128,64]{1,0} parameter(2)
  %b = bf16[64,32]{1,0} parameter(3)
  %s = bf16[64,256]{1,0} parameter(4)
  %zeros = f32[64]{0} constant({...})
  %conv = (bf16[2,8,8,32]{3,2,1,0}, u8[0]{0}) custom-call(%x, %k), LABELS
  %product = bf16[128,32]{1,0} fusion(%a, %b), kind=kCustom, calls=%fused_dot, backend_config={"estimated_cycles":"750"}
  %sum = f32[8]{0} all-reduce-start(%zeros), to_apply=%body
  %sum.done = f32[8]{0} all-reduce-done(%sum)
  %loop = (s32[], f32[8]{0}) while(%start), condition=%body, body=%body
  ROOT %out = f32[1,256]{1,0} fusion(%s, %zeros), kind=kLoop, calls=%fused_slice
}
""".replace("LABELS", 'dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$convForward"')


def test_kernels_are_read_with_their_traffic_and_operations() -> None:
    found = {kernel.kind: kernel for kernel in hlo.kernels(PROGRAM) if kernel.kind != "fusion"}
    assert set(found) == {"__cudnn$convForward", "all-reduce-start", "add"}
    convolution = found["__cudnn$convForward"]
    assert convolution.flops == 2 * (2 * 8 * 8) * 32 * 3 * 3 * 16
    assert convolution.bytes == 2 * (2 * 8 * 8 * 16 + 32 * 3 * 3 * 16 + 2 * 8 * 8 * 32)
    product, row = (kernel for kernel in hlo.kernels(PROGRAM) if kernel.kind == "fusion")
    assert product.flops == 2 * 128 * 64 * 32
    assert row.bytes == 2 * 256 + 4 * 64 + 4 * 256  # of what is only sliced, the slice
    assert found["add"].bytes == 3 * 32
    assert hlo.collectives(hlo.kernels(PROGRAM)) == {"all-reduce": 1}
    assert hlo.convolutions(hlo.kernels(PROGRAM)) == {"bf16": 2}


def test_estimates_are_the_longer_of_work_and_traffic_and_the_compilers_cycles() -> None:
    kernels = [
        hlo.Kernel(kind="conv", dtype="bf16", bytes=1, flops=4e9, cycles=1000),
        hlo.Kernel(kind="fusion", dtype="", bytes=85 * 10**6, flops=0.0, cycles=500),
    ]
    card = topologies.Speed(products=1e12, memory=1e11)
    assert hlo.estimate(kernels, card) == pytest.approx(4e9 / 0.4e12 + 85e6 / 0.85e11 + 4e-6)
    assert hlo.estimate(kernels, topologies.Speed(clock=1e9)) == pytest.approx(1.5e-6)


def test_a_program_of_this_machine_is_compiled_and_described(tmp_path: Path) -> None:
    run = make_run(tmp_path, devices=2)
    here = dataclasses.replace(topologies.find("here"), mesh=run.mesh)
    found = json.loads(json.dumps(compiling.compiled(run, "second", here)))
    assert found["stage"] == "second"
    assert found["bytes"] > 2 * 32 * 32 * 3
    assert found["kernels"] > 0
    assert found["traffic"] > 2 * 32 * 32 * 3
    assert found["collectives"]["all-reduce"] >= 1
    assert found["step_s"] is None
    assert list(compiling.names_of(run)) == ["first", "second"]
    table = compilation.table([compilation.row(found), compilation.row({"stage": "broken", "fault": "Check failed"})])
    assert "second" in table
    assert "broken: does not compile: Check failed" in table


def test_updates_in_turn_are_compiled_one_by_one(tmp_path: Path) -> None:
    run = with_two_updates(make_run(tmp_path))
    here = dataclasses.replace(topologies.find("here"), mesh=run.mesh)
    assert list(compiling.names_of(run)) == ["first", "second/1", "second/2"]
    found = [compiling.compiled(run, f"second/{number}", here) for number in (1, 2)]
    assert [row["stage"] for row in found] == ["second/1", "second/2"]
    assert [row["model_flops"] for row in found] == [0, 2 * 2 * 2 * 32 * 32 * 3]


@pytest.mark.parametrize("name", ["h200", "h200:0", "v5e:4", "h100:8", "v5e:2x2x2", ""])
def test_other_names_are_answered_with_those_that_exist(name: str) -> None:
    with pytest.raises(ValueError, match=r"--topology: found .*, expected h200:N, v5e:NxM"):
        topologies.find(name)


@pytest.mark.parametrize(
    ("plugin", "name", "extra"), [("jax_cuda12_plugin", "h200:8", "cuda12"), ("libtpu", "v5e:2x2", "tpu")]
)
def test_a_missing_plugin_is_named_with_how_to_install_it(plugin: str, name: str, extra: str) -> None:
    if importlib.util.find_spec(plugin):
        pytest.skip(f"{plugin} is installed")
    with pytest.raises(ValueError, match=rf"found no compiler for it, expected one: pip install 'jax\[{extra}\]=="):
        topologies.find(name)


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "jaxpose.main", "--mode=compile", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def test_what_is_wrong_on_the_command_line_is_one_line() -> None:
    done = command("--config=configs/regda.py:rhd_h3d", "--topology=here")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--joints=21 (or as many as there are) compiles without the data" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["pretrain", "adapt"])
@pytest.mark.parametrize(("plugin", "name"), [("jax_cuda12_plugin", "h200:4"), ("libtpu", "v5e:2x2")])
def test_the_default_configuration_compiles_for_accelerators(plugin: str, name: str, stage: str) -> None:
    if not importlib.util.find_spec(plugin):
        pytest.skip(f"{plugin} is not installed")
    done = command("--config=configs/regda.py:quick", f"--topology={name}", f"--stage={stage}")
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["convolutions"]["bf16"] > 50
    assert 0 < found["step_s"] < 0.01
    assert sum(found["collectives"].values()) < 70


def test_the_trainer_traces_for_its_mesh(tmp_path: Path) -> None:
    """The state is chosen by a vector on GPUs: what is traced follows the mesh, not the devices here."""
    run = make_run(tmp_path)
    for platform, gated in (("gpu", True), ("cpu", False)):
        program = Program(config=run.config, stages=run.stages, task=run.task, mesh=abstract_mesh(platform))
        text = str(program.traced(0).jaxpr)
        assert ("optimization_barrier" in text) == gated


def test_what_readers_left_out_is_said_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path)
    source = dataclasses.replace(run.pair.domains["source"], notes=(Note(what="left out images", count=1),))
    pair = dataclasses.replace(run.pair, domains={**run.pair.domains, "source": source})
    monkeypatch.setattr(build, "open_data", lambda config: pair)
    monkeypatch.setattr(modes.compiling, "compiled", lambda program, name, found: {"stage": name})
    monkeypatch.setattr(modes.compilation, "row", lambda result: result)
    monkeypatch.setattr(modes.compilation, "table", lambda rows: f"{len(rows)} rows")
    modes.compile_for(run.config, "here", joints=None, stage=None, arguments=())
    assert capsys.readouterr().out.startswith("source: left out images: 1\n")
    modes.compile_for(run.config, "here", joints=None, stage="first", arguments=())
    assert capsys.readouterr().out == '{"stage": "first"}\n'


def test_unknown_stages_are_answered_with_the_updates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = with_two_updates(make_run(tmp_path))
    monkeypatch.setattr(build, "open_data", lambda config: run.pair)
    monkeypatch.setattr(build, "program_of", lambda *_: run)
    with pytest.raises(ValueError, match="--stage: found 'second', expected one of first, second/1, second/2"):
        modes.compile_for(run.config, "here", joints=None, stage="second", arguments=())
