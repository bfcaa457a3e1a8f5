"""Networks of poses: an auto-encoder that follows the body's limbs, and critics of codes and of poses.

Poses are unit vectors of bones, each in the frame of the bone before it (`ops.local_frames`).

Source: Kundu et al. 2021, arXiv:2204.01971, Sec. 3.1, and the sizes of the released code, of which one layer of 512 is
made but not used; here it is.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxpose.models.layers import Dense
from jaxpose.ops.local_frames import BodyTree

Local = Float[Array, "*b e 3"]
_SLOPE = 0.2  # of leaky ReLUs
_ARMS, _LEGS = ("right_arm", "left_arm"), ("right_leg", "left_leg")
_LIMBS = (*_ARMS, *_LEGS)


class PoseEncoder(nnx.Module):
    """Poses to codes within +-bound: limbs and trunk, limbs with the trunk, upper and lower half, the whole.

    Attributes:
      trunk, right_arm, left_arm, right_leg, left_leg: 32 numbers each.
      joined_right_arm, ...: a limb and the trunk, 64.
      upper, lower: two limbs, 128.
      whole0, whole1: 512 each.
      out: the code.
    """

    def __init__(
        self,
        *,
        tree: BodyTree,
        latent: int,
        bound: float,
        width: float = 1.0,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        del dtype  # float32: bones are few
        self.tree, self.bound = tree, bound
        limb, joined, half, whole = hidden(width)
        for name, bones in parts(self.tree).items():
            setattr(self, name, Dense(3 * len(bones), limb, rngs=rngs))
        for name in _LIMBS:
            setattr(self, f"joined_{name}", Dense(2 * limb, joined, rngs=rngs))
        self.upper, self.lower = (Dense(2 * joined, half, rngs=rngs) for _ in range(2))
        self.whole0, self.whole1 = Dense(2 * half, whole, rngs=rngs), Dense(whole, whole, rngs=rngs)
        self.out = Dense(whole, latent, gain=1.0, rngs=rngs)

    def __call__(self, x: Local, train: bool) -> Float[Array, "*b z"]:
        """Codes."""
        found = {name: _leaky(getattr(self, name)(_flat(x[..., bones, :]))) for name, bones in parts(self.tree).items()}
        joined = {name: _applied(getattr(self, f"joined_{name}"), found["trunk"], found[name]) for name in _LIMBS}
        upper = _applied(self.upper, *(joined[name] for name in _ARMS))
        lower = _applied(self.lower, *(joined[name] for name in _LEGS))
        whole = _leaky(self.whole1(_applied(self.whole0, upper, lower)))
        return bounded(self.out(whole), self.bound)


class PoseDecoder(nnx.Module):
    """Codes to poses, in the opposite order; of the trunk, what the four limbs say of it is added up.

    Attributes:
      whole0, whole1, whole2: 512 each.
      upper, lower, trunk_right_arm, limb_right_arm, ...: as in the encoder.
      trunk, right_arm, left_arm, right_leg, left_leg: vectors of bones.
    """

    def __init__(
        self, *, tree: BodyTree, latent: int, width: float = 1.0, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
    ):
        del dtype
        self.tree = tree
        limb, joined, half, whole = hidden(width)
        self.whole0 = Dense(latent, whole, rngs=rngs)
        self.whole1, self.whole2 = (Dense(whole, whole, rngs=rngs) for _ in range(2))
        self.upper, self.lower = (Dense(whole, half, rngs=rngs) for _ in range(2))
        for name in _LIMBS:
            setattr(self, f"joined_{name}", Dense(half, joined, rngs=rngs))
            setattr(self, f"trunk_{name}", Dense(joined, limb, rngs=rngs))
            setattr(self, f"limb_{name}", Dense(joined, limb, rngs=rngs))
        for name, bones in parts(self.tree).items():
            setattr(self, name, Dense(limb, 3 * len(bones), gain=1.0, rngs=rngs))

    def __call__(self, z: Float[Array, "*b z"], train: bool) -> Local:
        """Vectors whose directions are those of the bones; their lengths mean nothing."""
        whole = _leaky(self.whole2(_leaky(self.whole1(_leaky(self.whole0(z))))))
        halves = {name: _leaky(self.upper(whole)) for name in _ARMS} | {
            name: _leaky(self.lower(whole)) for name in _LEGS
        }
        joined = {name: _leaky(getattr(self, f"joined_{name}")(halves[name])) for name in _LIMBS}
        trunk = sum((getattr(self, f"trunk_{name}")(joined[name]) for name in _LIMBS), start=jnp.zeros(()))
        found = {"trunk": _leaky(trunk)}
        found |= {name: _leaky(getattr(self, f"limb_{name}")(joined[name])) for name in _LIMBS}
        vectors = [getattr(self, name)(found[name]).reshape(*z.shape[:-1], -1, 3) for name in parts(self.tree)]
        order = np.argsort(np.concatenate(list(parts(self.tree).values())))
        return jnp.concatenate(vectors, axis=-2)[..., order, :]


class LatentCritic(nnx.Module):
    """Codes to one logit, positive for those that are drawn, by three layers."""

    def __init__(self, *, latent: int, width: float = 1.0, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs):
        del dtype
        whole = hidden(width)[-1]
        self.layer1, self.layer2 = Dense(latent, whole, rngs=rngs), Dense(whole, whole, rngs=rngs)
        self.layer3 = Dense(whole, 1, gain=1.0, rngs=rngs)

    def __call__(self, z: Float[Array, "*b z"], train: bool) -> Float[Array, "*b"]:
        """Logits."""
        return self.layer3(_leaky(self.layer2(_leaky(self.layer1(z)))))[..., 0]


class PoseCritic(nnx.Module):
    """Poses to opinions (..., E + 6) on every bone, on the five parts and on the whole, see `critic_weights`.

    Attributes:
      bone0, bone1: 32 each, the same for all bones; bone2: an opinion by bone.
      trunk0, trunk1, ...: 200, and an opinion.
      whole0, whole1: 1024 each; whole2: an opinion.
    """

    def __init__(self, *, tree: BodyTree, width: float = 1.0, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs):
        del dtype
        self.tree = tree
        bone, part, whole = (max(1, round(width * size)) for size in (32, 200, 1024))
        count = len(tree.joints) - 1
        self.bone0, self.bone1 = Dense(3, bone, rngs=rngs), Dense(bone, bone, rngs=rngs)
        self.bone2 = nnx.Param(jax.random.normal(rngs.params(), (count, bone)) / bone**0.5)
        for name, bones in parts(self.tree).items():
            setattr(self, f"{name}0", Dense(len(bones) * bone, part, rngs=rngs))
            setattr(self, f"{name}1", Dense(part, 1, gain=1.0, rngs=rngs))
        self.whole0, self.whole1 = Dense(count * bone, whole, rngs=rngs), Dense(whole, whole, rngs=rngs)
        self.whole2 = Dense(whole, 1, gain=1.0, rngs=rngs)

    def __call__(self, x: Local, train: bool) -> Float[Array, "*b n"]:
        """Opinions."""
        bones = _leaky(self.bone1(_leaky(self.bone0(x))))
        single = jnp.einsum("...ec,ec->...e", bones, self.bone2[...])
        of_parts = [
            getattr(self, f"{name}1")(_leaky(getattr(self, f"{name}0")(_flat(bones[..., which, :]))))
            for name, which in parts(self.tree).items()
        ]
        whole = self.whole2(_leaky(self.whole1(_leaky(self.whole0(_flat(bones))))))
        return jnp.concatenate([single, *of_parts, whole], axis=-1)


def critic_weights(tree: BodyTree) -> Float[np.ndarray, " n"]:
    """How much each opinion of `PoseCritic` counts: bones, parts and the whole a third each."""
    bones = len(tree.joints) - 1
    return np.concatenate([np.full(bones, 1 / (3 * bones)), np.full(5, 1 / 15), [1 / 3]]).astype(np.float32)


def parts(tree: BodyTree) -> dict[str, np.ndarray]:
    """Which bones belong to trunk, arms and legs; each belongs to one."""
    of_limbs = {"arm": ("shoulder", "elbow", "wrist"), "leg": ("hip", "knee", "ankle", "foot")}
    joints = tree.joints[1:]
    found = {}
    for limb in _LIMBS:
        side, kind = limb.split("_")
        found[limb] = np.array([joints.index(f"{side}_{j}") for j in of_limbs[kind] if f"{side}_{j}" in joints])
    trunk = np.setdiff1d(np.arange(len(joints)), np.concatenate(list(found.values())))
    return {"trunk": trunk, **found}


def hidden(width: float) -> tuple[int, int, int, int]:
    """Sizes of the layers of limbs, of a limb with the trunk, of halves and of the whole."""
    limb, joined, half, whole = (max(1, round(width * size)) for size in (32, 64, 128, 512))
    return limb, joined, half, whole


def bounded(x: Float[Array, "*b z"], bound: float) -> Float[Array, "*b z"]:
    """Numbers within +-bound, those that are small as they are."""
    return bound * jnp.tanh(x / bound)


def _applied(layer: Dense, *features: Array) -> Array:
    return _leaky(layer(jnp.concatenate(features, axis=-1)))


def _leaky(x: Array) -> Array:
    return jax.nn.leaky_relu(x, _SLOPE)


def _flat(x: Array) -> Array:
    return x.reshape(*x.shape[:-2], -1)
