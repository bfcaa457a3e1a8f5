"""What bodies can be like, as an adversarial auto-encoder of the directions of their bones.

Encoder and decoder are put together as the body is: of limbs, limbs with the trunk, upper and lower half, all of it.
Directions are those of `ops.local_frames`, and keep how a body is turned to the camera.

Source: Kundu et al. 2021 (relation distillation), Sec. 3.1, which says no more than "fully connected", and the released
code, whose encoder makes a second layer of the whole body and leaves it out by mistake; here it is in.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from jaxpose.models import layers
from jaxpose.ops.activation import bounded
from jaxpose.ops.local_frames import BodyTree
from jaxpose.ops.trees import unit

LIMBS = ("right_arm", "left_arm", "right_leg", "left_leg")
PARTS = ("trunk", *LIMBS)

Directions = Float[Array, "*b e 3"]


class PoseEncoder(nnx.Module):
    """Directions of bones to latent vectors z, none of whose numbers is beyond `bound`.

    Attributes:
      parts: by part, of its bones' directions; the bone to the thorax belongs to the trunk and to both arms.
      limbs: by limb, of it and the trunk.
      upper, lower: of arms and legs.
      full1, full2, latent: of both halves.
    """

    def __init__(
        self,
        *,
        tree: BodyTree,
        latent: int = 32,
        bound: float = 1.0,
        width: float = 1.0,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        del dtype  # float32: bones are few
        self.tree, self.bound, size = tree, bound, layers.scaled(_SIZE, width)
        parts = bones_of(tree)
        self.parts = nnx.Dict({part: layers.Dense(3 * len(bones), size, rngs=rngs) for part, bones in parts.items()})
        self.limbs = nnx.Dict({limb: layers.Dense(2 * size, 2 * size, rngs=rngs) for limb in LIMBS})
        self.upper, self.lower = (layers.Dense(4 * size, 4 * size, rngs=rngs) for _ in range(2))
        self.full1 = layers.Dense(8 * size, 16 * size, rngs=rngs)
        self.full2 = layers.Dense(16 * size, 16 * size, rngs=rngs)
        self.latent = layers.Dense(16 * size, latent, init=layers.lecun_normal, rngs=rngs)

    def __call__(self, x: Directions, train: bool) -> Float[Array, "*b z"]:
        """Latent vectors of any batch, of frames or of sequences."""
        parts = {part: _leaky(self.parts[part](_flat(x[..., bones, :]))) for part, bones in bones_of(self.tree).items()}
        limbs = {limb: _leaky(self.limbs[limb](_joined(parts["trunk"], parts[limb]))) for limb in LIMBS}
        upper = _leaky(self.upper(_joined(limbs["right_arm"], limbs["left_arm"])))
        lower = _leaky(self.lower(_joined(limbs["right_leg"], limbs["left_leg"])))
        full = _leaky(self.full2(_leaky(self.full1(_joined(upper, lower)))))
        return bounded(self.latent(full), self.bound)


class PoseDecoder(nnx.Module):
    """Latent vectors to unit vectors of bones: the encoder backwards.

    What it makes of the whole body is cut in two, of a half again, and of a limb into what is its own and what is the
    trunk's, which is the sum of four. A bone of several parts is the sum of what they make of it.

    It starts near the body at rest: one that starts anywhere has bones that point the other way, and stay there, as on
    unit vectors the L1 distance has a minimum opposite to each axis.

    Attributes:
      full1, full2, full3: of the latent vector.
      upper, lower, limbs, parts: as of the encoder.
      bones: by part, the directions.
    """

    def __init__(
        self,
        *,
        tree: BodyTree,
        latent: int = 32,
        width: float = 1.0,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        del dtype
        self.tree, size = tree, layers.scaled(_SIZE, width)
        self.full1 = layers.Dense(latent, 16 * size, rngs=rngs)
        self.full2, self.full3 = (layers.Dense(16 * size, 16 * size, rngs=rngs) for _ in range(2))
        self.upper, self.lower = (layers.Dense(8 * size, 4 * size, rngs=rngs) for _ in range(2))
        self.limbs = nnx.Dict({limb: layers.Dense(2 * size, 2 * size, rngs=rngs) for limb in LIMBS})
        self.parts = nnx.Dict({part: layers.Dense(size, size, rngs=rngs) for part in PARTS})
        self.bones = nnx.Dict()
        for part, bones in bones_of(tree).items():
            self.bones[part] = layers.Dense(size, 3 * len(bones), init=layers.normal(0.01), rngs=rngs)
            self.bones[part].bias.set_value(jnp.asarray(tree.rest[bones].reshape(-1)))

    def __call__(self, x: Float[Array, "*b z"], train: bool) -> Directions:
        """Directions of the tree's bones."""
        full = _leaky(self.full3(_leaky(self.full2(_leaky(self.full1(x))))))
        halves = (_leaky(half(part)) for half, part in zip((self.upper, self.lower), _halves(full), strict=True))
        limbs = [limb for half in halves for limb in _halves(half)]
        both = [_halves(_leaky(self.limbs[name](limb))) for name, limb in zip(LIMBS, limbs, strict=True)]
        parts = [sum(trunk for trunk, _ in both), *(own for _, own in both)]
        found = [self.bones[name](_leaky(self.parts[name](part))) for name, part in zip(PARTS, parts, strict=True)]
        bones = jnp.concatenate([part.reshape(*x.shape[:-1], -1, 3) for part in found], axis=-2)
        vectors = jnp.einsum("em,...mx->...ex", _owners(self.tree), bones, precision="highest")
        return unit(vectors, jnp.broadcast_to(jnp.asarray(self.tree.rest), vectors.shape))


class LatentCritic(nnx.Module):
    """Latent vectors to a logit, positive for the prior: the adversary of an adversarial auto-encoder.

    The paper says nothing of its layers; these are two of 512.
    """

    def __init__(self, *, latent: int = 32, width: float = 1.0, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs):
        del dtype
        hidden = layers.scaled(512, width)
        self.layer1 = layers.Dense(latent, hidden, rngs=rngs)
        self.layer2 = layers.Dense(hidden, hidden, rngs=rngs)
        self.layer3 = layers.Dense(hidden, 1, init=layers.lecun_normal, rngs=rngs)

    def __call__(self, x: Float[Array, "*b z"], train: bool) -> Float[Array, "*b"]:
        """Logits."""
        return self.layer3(_leaky(self.layer2(_leaky(self.layer1(x)))))[..., 0]


class PoseCritic(nnx.Module):
    """Directions to logits, positive for recorded poses: of each bone, of five parts and of the body.

    Which of them counts how much is `logit_weights`.

    Attributes:
      bone1, bone2: features of every bone by itself, which all logits are made of.
      bones: a logit of each.
      parts1, parts2: by part.
      full1, full2, full3: of the body.
    """

    def __init__(self, *, tree: BodyTree, width: float = 1.0, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs):
        del dtype
        self.tree, count = tree, len(tree.joints) - 1
        features, limb, full = (layers.scaled(size, width) for size in (32, 200, 1024))
        self.bone1, self.bone2 = layers.Dense(3, features, rngs=rngs), layers.Dense(features, features, rngs=rngs)
        self.bones = _Each(count, features, rngs=rngs)
        parts = bones_of(tree).items()
        self.parts1 = nnx.Dict({part: layers.Dense(features * len(found), limb, rngs=rngs) for part, found in parts})
        self.parts2 = nnx.Dict({part: layers.Dense(limb, 1, init=layers.lecun_normal, rngs=rngs) for part in PARTS})
        self.full1 = layers.Dense(features * count, full, rngs=rngs)
        self.full2 = layers.Dense(full, full, rngs=rngs)
        self.full3 = layers.Dense(full, 1, init=layers.lecun_normal, rngs=rngs)

    def __call__(self, x: Directions, train: bool) -> Float[Array, "*b e6"]:
        """E + 6 logits: of the bones, of `PARTS`, of the body."""
        features = _leaky(self.bone2(_leaky(self.bone1(x))))
        parts = [
            self.parts2[part](_leaky(self.parts1[part](_flat(features[..., bones, :]))))
            for part, bones in bones_of(self.tree).items()
        ]
        full = self.full3(_leaky(self.full2(_leaky(self.full1(_flat(features))))))
        return jnp.concatenate([self.bones(features), *parts, full], axis=-1)


def logit_weights(tree: BodyTree) -> Float[np.ndarray, " e6"]:
    """What the logits of `PoseCritic` count in its losses: bones, parts and the body one third each."""
    bones, parts = len(tree.joints) - 1, len(PARTS)
    shares = [1 / (3 * bones)] * bones + [1 / (3 * parts)] * parts + [1 / 3]
    return np.array(shares, np.float32)


def bones_of(tree: BodyTree) -> dict[str, Int[np.ndarray, " n"]]:
    """The bones of each of `PARTS`, by the joints that they lead to."""
    known: dict[str, tuple[str, ...]] = {"trunk": ("thorax", "neck", "head_top")}
    for side in ("right", "left"):
        known[f"{side}_arm"] = ("thorax", *(f"{side}_{joint}" for joint in ("shoulder", "elbow", "wrist")))
        known[f"{side}_leg"] = tuple(f"{side}_{joint}" for joint in ("hip", "knee", "ankle", "foot"))
    bones = tree.joints[1:]
    return {part: np.array([bones.index(j) for j in known[part] if j in bones], np.int32) for part in PARTS}


class _Each(nnx.Module):
    """A logit of every bone by its own weights."""

    def __init__(self, count: int, features: int, *, rngs: nnx.Rngs):
        self.kernel = nnx.Param(layers.lecun_normal(rngs.params(), (features, count)))
        self.bias = nnx.Param(jnp.zeros(count))

    def __call__(self, x: Float[Array, "*b e c"]) -> Float[Array, "*b e"]:
        y = jnp.einsum("...ec,ce->...e", x, self.kernel[...], precision="highest")
        return y + self.bias[...].reshape((1,) * (y.ndim - 1) + (-1,))


_SIZE = 32  # features of a part; all others are multiples


def _owners(tree: BodyTree) -> Float[np.ndarray, "e m"]:
    """Which of the parts' bones, one part after the other, are which of the tree's: 0 or 1."""
    return np.eye(len(tree.joints) - 1, dtype=np.float32)[:, np.concatenate(list(bones_of(tree).values()))]


def _leaky(x: Array) -> Array:
    return jax.nn.leaky_relu(x, 0.2)


def _flat(x: Float[Array, "*b n c"]) -> Float[Array, "*b n*c"]:
    return x.reshape(*x.shape[:-2], -1)


def _joined(a: Float[Array, "*b c"], b: Float[Array, "*b c"]) -> Float[Array, "*b 2*c"]:
    return jnp.concatenate([a, b], axis=-1)


def _halves(x: Float[Array, "*b c"]) -> list[Array]:
    return jnp.split(x, 2, axis=-1)
