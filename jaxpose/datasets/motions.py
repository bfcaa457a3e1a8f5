"""Recorded motions without images, in canonical joints (`rigs.to_canonical`) and at the recorded frame rates."""

import dataclasses
import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from jaxpose.data.motion import amass, asf_amc, bvh, h36m, rigs
from jaxpose.data.motion.source import canonical_skeleton
from jaxpose.data.records import Motion
from jaxpose.datasets import _reading
from jaxpose.datasets.builder import MotionBuilder, Shard, Skipped

SHARD_SIZE = 200  # motions; one of CMU's takes about 400 kB

_CMU_HOMEPAGE = "http://mocap.cs.cmu.edu"
_CMU_LICENCE = "free for all uses but selling the data itself; asks for an acknowledgement"
_CMU_CITATION = (
    "The data used in this project was obtained from mocap.cs.cmu.edu. The database was created with funding from NSF "
    "EIA-0196217."
)


class Cmu(MotionBuilder):
    """Everyday movement, sport and dance of about 140 subjects with 20 joints, at 120 frames per second.

    These are the database's own files, an ASF for each subject and an AMC for each trial, in inches times 0.45. AMC
    files do not state their rate: the few trials of subjects 60 and 61 at 60 frames per second come out too fast.
    A joint is the far end of the bone of its name, and both collars are the end of the bone `thorax`.

    Subjects whose number ends in 5 are the test set, here and in `CmuBvh`. The owners say that one person may
    have several numbers, without saying which, so a person may still be in both.
    """

    SKELETON = canonical_skeleton("cmu", tuple(name for name in rigs.CANONICAL if name in rigs.CMU_ASF))
    COUNTS: Mapping[str, int | None] = {"train": None, "test": None}
    HOMEPAGE = _CMU_HOMEPAGE
    LICENCE = _CMU_LICENCE
    CITATION = _CMU_CITATION
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "unpack allasfamc.zip, whose folder subjects/ holds 01/01.asf, 01/01_01.amc, 01/01_02.amc ..."
    )

    def shards(self, root: Path) -> Mapping[str, Sequence[Shard]]:
        """Trials by number of the subject and the trial."""
        folders = [root / "subjects", root / "all_asfamc" / "subjects"]
        folder = next((folder for folder in folders if folder.is_dir()), None)
        if folder is None:
            raise FileNotFoundError(f"{folders[0]}: no such folder, expected the subjects 01, 02 ...")
        files = _trials(folder.glob("*/*.amc"), f"{folder}: found no NN/NN_MM.amc, expected the trials of each subject")
        for file, subject in files:
            if not _rig(file, subject).is_file():
                raise FileNotFoundError(f"{_rig(file, subject)}: no such file, expected the subject's skeleton")
        return _split_cmu(files, _read_asf_amc, self.SKELETON.joints)


class CmuBvh(MotionBuilder):
    """`Cmu` as BVH files, in either of the two usual conversions, at the rate that each file states.

    The T-pose that cgspeed's releases put before frame 1 is left out. Splits and units are those of `Cmu`. The head
    top is the end site of the head, some centimetres below the crown. A trial that the folder holds in two
    conversions is two records.
    """

    SKELETON = canonical_skeleton("cmu_bvh", tuple(name for name in rigs.CANONICAL if name in rigs.CMU_BVH))
    COUNTS: Mapping[str, int | None] = {"train": None, "test": None}
    HOMEPAGE = "https://sites.google.com/a/cgspeed.com/cgspeed/motion-capture"
    LICENCE = _CMU_LICENCE
    CITATION = _CMU_CITATION
    MANUAL_DOWNLOAD_INSTRUCTIONS = "unpack a conversion of the database to BVH: files 01_01.bvh ... in any folders"

    def shards(self, root: Path) -> Mapping[str, Sequence[Shard]]:
        """Trials by number of the subject and the trial."""
        files = _trials(root.rglob("*.bvh"), f"{root}: found no NN_MM.bvh, expected trials in any folders")
        return _split_cmu(files, _read_cmu_bvh, self.SKELETON.joints)


class BandaiNamco(MotionBuilder):
    """Walking, gestures and fights in many styles of three actors with 19 joints, at 30 frames per second.

    Both data sets are read: 175 motions of 17 kinds in 15 styles, and about 2,900 of 10 kinds in 7 styles. The files
    are BVH in centimetres without a T-pose; all have the same proportions. There is no head top. Neither names nor
    labels say which actor moves, so nothing can be held out by subject and all motions are for training.
    """

    SKELETON = canonical_skeleton("bandai_namco", tuple(name for name in rigs.CANONICAL if name in rigs.BANDAI_NAMCO))
    COUNTS: Mapping[str, int | None] = {"train": None}
    HOMEPAGE = "https://github.com/BandaiNamcoResearchInc/Bandai-Namco-Research-Motiondataset"
    LICENCE = "CC BY-NC 4.0; for a time it was CC BY-NC-ND 4.0, see the LICENSE of the copy"
    CITATION = (
        "Kobayashi et al.: Motion capture dataset for practical use of AI-based motion editing. arXiv:2306.08861."
    )
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "unpack the repository with the data.zip of one or both data sets: files dataset-1_walk_active_001.bvh and "
        "dataset-2_... in any folders"
    )

    def shards(self, root: Path) -> Mapping[str, Sequence[Shard]]:
        """Motions by name."""
        files = sorted(root.rglob("dataset-*.bvh"), key=lambda file: file.name)
        if not files:
            raise FileNotFoundError(f"{root}: found no dataset-N_KIND_STYLE_NNN.bvh, expected the motions")
        items = [(file, "") for file in files]
        return {"train": _in_shards(items, _read_bandai, self.SKELETON.joints)}


class Amass(MotionBuilder):
    """Motions of many laboratories, fitted with the SMPL family of body models, with 19 joints.

    Frame rates are those of the files. With a body model below `body_models` bone lengths are the subject's; without
    one all bodies are one made-up adult, see `amass.read`. There is no head top. Files without a motion (`shape.npz`,
    `*_stagei.npz`) are not read. The owners' splits hold out whole collections: HumanEva, HDM05, SFU and MoSh to
    validate, Transitions and SSM to test. Collections that came later train. Subjects are `COLLECTION/NAME`.

    The collection CMU holds the recordings of `Cmu`: do not test on that what was trained on this.

    Source: the splits that github.com/nghorbani/human_body_prior recommends.
    """

    SKELETON = canonical_skeleton("amass", tuple(name for name in rigs.CANONICAL if name in rigs.SMPL22))
    COUNTS: Mapping[str, int | None] = {"train": None, "validation": None, "test": None}
    HOMEPAGE = "https://amass.is.tue.mpg.de"
    LICENCE = "for research, not commercial; the body models have licences of their own"
    CITATION = "Mahmood et al.: AMASS: archive of motion capture as surface shapes. ICCV 2019."
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "unpack the collections: COLLECTION/SUBJECT/NAME.npz, of SMPL+H, SMPL-X or DMPL; optionally a body model as "
        "body_models/smplh/GENDER/model.npz, body_models/GENDER/model.npz or a single .npz in body_models"
    )

    def shards(self, root: Path) -> Mapping[str, Sequence[Shard]]:
        """Motions by collection, subject and name."""
        files: dict[str, list[tuple[Path, str]]] = {"train": [], "validation": [], "test": []}
        for file in sorted(root.glob("*/*/*.npz")):
            collection, person, name = file.relative_to(root).parts
            if collection != "body_models" and name != "shape.npz" and not name.endswith("_stagei.npz"):
                files[_AMASS_HELD_OUT.get(collection, "train")].append((file, f"{collection}/{person}"))
        if not any(files.values()):
            raise FileNotFoundError(f"{root}: found no COLLECTION/SUBJECT/NAME.npz, expected the motions")
        read = functools.partial(_read_amass, model=_body_model(root / "body_models"))
        return {split: _in_shards(items, read, self.SKELETON.joints) for split, items in files.items()}


_H36M_TRAIN, _H36M_TEST = ("S1", "S5", "S6", "S7", "S8"), ("S9", "S11")
_H36M_SKELETON = canonical_skeleton(
    "human36m_poses", tuple(j for j in rigs.CANONICAL if j in (*h36m.JOINTS17, *rigs.FEET))
)
_H36M_JOINTS = (*h36m.JOINTS17, "left_toe", "right_toe")
_H36M_HOMEPAGE = "http://vision.imar.ro/human3.6m"
_H36M_LICENCE = "for academic use; asks for a registration"
_H36M_CITATION = (
    "Ionescu, Papava, Olaru and Sminchisescu: Human3.6M: large scale datasets and predictive methods for 3D human "
    "sensing in natural environments. TPAMI 2014."
)
# 15 actions, twice each; one recording is damaged.
_H36M_COUNTS: Mapping[str, int | None] = {"train": 150, "test": 59}


class Human36mPoses(MotionBuilder):
    """209 motions of seven actors with 17 joints, at 50 frames per second, in the world's frame with z up.

    Read from VideoPose3D's `data_3d_h36m.npz`, whose pickled content is read without running anything that it names.
    Subjects S1, S5, S6, S7 and S8 train, S9 and S11 test. The damaged recording S11/Directions is left out; the older
    names of actions become the newer ones, as in `h36m.read`. There is no neck; nose and spine are left out. Feet
    are the ends of the toes, for which the file has all 32 joints.
    """

    SKELETON = _H36M_SKELETON
    COUNTS = _H36M_COUNTS
    HOMEPAGE = _H36M_HOMEPAGE
    LICENCE = _H36M_LICENCE
    CITATION = _H36M_CITATION
    MANUAL_DOWNLOAD_INSTRUCTIONS = "make data_3d_h36m.npz as github.com/facebookresearch/VideoPose3D describes"

    def shards(self, root: Path) -> Mapping[str, Sequence[Shard]]:
        """Motions by subject and action, a shard per subject."""
        motions = h36m.read(root / "data_3d_h36m.npz", subjects=(*_H36M_TRAIN, *_H36M_TEST), joints=_H36M_JOINTS)
        return {
            split: [
                functools.partial(_convert, [m for m in motions if m.subject == subject], self.SKELETON.joints)
                for subject in subjects
            ]
            for split, subjects in (("train", _H36M_TRAIN), ("test", _H36M_TEST))
        }


class Human36mCdf(MotionBuilder):
    """`Human36mPoses` from the data set's own files, millimetres in the world's frame; needs the package cdflib.

    Read from `D3_Positions`; `D3_Positions_mono` would be the same motions in the frames of four cameras.
    """

    SKELETON = _H36M_SKELETON
    COUNTS = _H36M_COUNTS
    HOMEPAGE = _H36M_HOMEPAGE
    LICENCE = _H36M_LICENCE
    CITATION = _H36M_CITATION
    MANUAL_DOWNLOAD_INSTRUCTIONS = "unpack the D3 positions of all subjects: S1/MyPoseFeatures/D3_Positions/*.cdf ..."

    def shards(self, root: Path) -> Mapping[str, Sequence[Shard]]:
        """Motions by subject and action, a shard per subject."""
        return {
            split: [shard for subject in subjects for shard in self._subject(root, subject)]
            for split, subjects in (("train", _H36M_TRAIN), ("test", _H36M_TEST))
        }

    def _subject(self, root: Path, subject: str) -> list[Shard]:
        folder = root / subject / "MyPoseFeatures" / "D3_Positions"
        files = sorted(folder.glob("*.cdf"))
        if not files:
            raise FileNotFoundError(f"{folder}: found no .cdf, expected the subject's motions")
        kept = [(file, subject) for file in files if (subject, file.stem) != _H36M_DAMAGED]
        return _in_shards(kept, _read_cdf, self.SKELETON.joints)


_H36M_DAMAGED = ("S11", "Directions")
_AMASS_HELD_OUT = {
    # Both the first release's names and those of the later ones.
    **dict.fromkeys(("HumanEva", "MPI_HDM05", "HDM05", "SFU", "MPI_mosh", "MoSh"), "validation"),
    **dict.fromkeys(("Transitions_mocap", "Transitions", "SSM_synced", "SSM"), "test"),
}
_TRIAL = re.compile(r"(\d+)_(\d+)")

_Read = Callable[[Path, str], Motion]  # from a file and its subject


def _trials(found: Iterator[Path], problem: str) -> list[tuple[Path, str]]:
    """CMU's files with their subjects, by the numbers of subject and trial."""
    named = [(file, match) for file in found if (match := _TRIAL.fullmatch(file.stem))]
    if not named:
        raise FileNotFoundError(problem)
    named.sort(key=lambda item: (int(item[1][1]), int(item[1][2]), str(item[0])))
    return [(file, match[1]) for file, match in named]


def _split_cmu(files: Sequence[tuple[Path, str]], read: _Read, joints: tuple[str, ...]) -> dict[str, list[Shard]]:
    """Every tenth number is held out."""
    parts = {
        "train": [item for item in files if int(item[1]) % 10 != 5],
        "test": [item for item in files if int(item[1]) % 10 == 5],
    }
    return {split: _in_shards(items, read, joints) for split, items in parts.items()}


def _rig(file: Path, subject: str) -> Path:
    return file.with_name(f"{subject}.asf")


def _read_asf_amc(file: Path, subject: str) -> Motion:
    return asf_amc.read(_rig(file, subject), file, subject=subject)


def _read_cmu_bvh(file: Path, subject: str) -> Motion:
    return dataclasses.replace(bvh.read_cmu(file), subject=subject)


def _read_bandai(file: Path, subject: str) -> Motion:
    return dataclasses.replace(bvh.read_bandai(file), subject=subject)


def _read_amass(file: Path, subject: str, *, model: Path | None) -> Motion:
    return dataclasses.replace(amass.read(file, model=model, subject=subject), name=f"{subject}/{file.stem}")


def _read_cdf(file: Path, subject: str) -> Motion:
    return h36m.read_cdf(file, subject=subject, joints=_H36M_JOINTS)


def _body_model(folder: Path) -> Path | None:
    """What `amass.read` takes as a model, if there is one."""
    if not folder.exists():
        return None
    for candidate in (folder / "smplh", folder):
        if any(candidate.glob("*/model.npz")):
            return candidate
    files = sorted(folder.glob("*.npz"))
    if len(files) != 1:
        raise ValueError(f"{folder}: found {len(files)} .npz and no GENDER/model.npz, expected one body model")
    return files[0]


def _in_shards(items: Sequence[tuple[Path, str]], read: _Read, joints: tuple[str, ...]) -> list[Shard]:
    return [functools.partial(_read_files, part, read, joints) for part in _reading.in_parts(items, SHARD_SIZE)]


def _read_files(items: Sequence[tuple[Path, str]], read: _Read, joints: tuple[str, ...]) -> Iterator[Motion | Skipped]:
    for file, subject in items:
        try:
            motion = read(file, subject)
        except ValueError as error:  # which begins with the file's name
            yield Skipped(str(error), "the file is not a readable motion")
            continue
        yield from _convert([motion], joints)


def _convert(motions: Sequence[Motion], joints: tuple[str, ...]) -> Iterator[Motion | Skipped]:
    """The motions in canonical joints."""
    for motion in motions:
        try:
            found = rigs.to_canonical(motion)
        except ValueError:
            yield Skipped(motion.name, "the rig is unknown")
            continue
        yield found if found.joints == joints else Skipped(motion.name, "the rig is another one's")
