"""What labelled poses say about the poses that there can be, batch by batch: how long bones are, how palms are shaped.

Statistics are plain dicts of arrays that a train state can hold. Every labelled pose that was ever seen counts alike.
Lengths are in units of a reference bone, angles in degrees.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxpose.ops import kinematics
from jaxpose.ops.trees import Points3d, Tree, length

Statistics = dict[str, Array]

# A right hand seen from its palm, roughly: wrist and knuckles. It is only what the first palms are turned to.
_PALM = ((0.0, 0.0, 0.0), (0.3, 0.25, 0.1), (0.25, 0.95, 0.0), (0.05, 1.0, 0.0), (-0.15, 0.93, 0.0), (-0.33, 0.82, 0.0))
_PALM_JOINTS = np.array((0, 1, 5, 9, 13, 17), np.int32)


def initial_lengths(tree: Tree) -> Statistics:
    """Of no poses."""
    return {name: jnp.zeros(len(tree)) for name in ("count", "mean", "variance")}


def updated_lengths(statistics: Statistics, points3d: Points3d, mask: Bool[Array, "b k"], *, tree: Tree) -> Statistics:
    """Mean and variance of the lengths of bones, with those of a batch.

    Args:
      statistics: of the poses before.
      points3d: poses.
      mask: the joints that are labelled; the others may hold anything. A bone counts where both its ends are.
      tree: the bones.

    Source: Chan et al. 1979, by which variances of parts are added up without a loss of digits.
    """
    known = mask[:, tree[:, 0]] & mask[:, tree[:, 1]]
    points3d = jnp.where(mask[..., None], points3d, 0.0)
    found = length(points3d[:, tree[:, 1]] - points3d[:, tree[:, 0]])
    count, mean = _mean(found, known)
    _, variance = _mean(jnp.square(found - mean[None]), known)
    share = _share(count, statistics["count"])
    apart = mean - statistics["mean"]
    spread = (1 - share) * statistics["variance"] + share * variance + share * (1 - share) * jnp.square(apart)
    return {
        "count": statistics["count"] + count,
        "mean": statistics["mean"] + share * apart,
        "variance": spread,
    }


def bounds(statistics: Statistics, deviations: float) -> Float[Array, "e 2"]:
    """Least and greatest lengths of bones: some standard deviations from the mean; of unknown bones, 0 and infinity."""
    mean, spread = statistics["mean"], deviations * jnp.sqrt(statistics["variance"])
    known = statistics["count"] > 0
    low, high = jnp.where(known, jnp.maximum(mean - spread, 0.0), 0.0), jnp.where(known, mean + spread, jnp.inf)
    return jnp.stack([low, high], axis=-1)


def initial_palm() -> Statistics:
    """Of no hands."""
    return {
        "count": jnp.zeros(()),
        "palm": jnp.asarray(_PALM),
        "abduction": jnp.zeros(5),
        "bent": jnp.zeros(5),
        "twist": jnp.zeros((5, 2)),
    }


def updated_palm(
    statistics: Statistics,
    hands: kinematics.Hands,
    mask: Bool[Array, "b 21"],
    *,
    mirrored: Bool[Array, " b"],
) -> Statistics:
    """The shape of palms and how fingers rest, with those of a batch; hands count of which all joints are labelled.

    Palms are turned about the wrist to be nearest to the shape so far, before they enter their mean.

    Args:
      statistics: of the hands before.
      hands: of right hands, or left ones where `mirrored`.
      mask: the joints that are labelled; the others may hold anything.
      mirrored: hands that are mirrored in x.

    Source: Gower 1975, generalised Procrustes analysis, with each palm turned once.
    """
    known = jnp.all(mask, axis=1)
    hands = jnp.where(known[:, None, None], hands, 0.0)
    right = hands.at[..., 0].multiply(jnp.where(mirrored, -1.0, 1.0)[:, None])
    palms = right[:, _PALM_JOINTS] - right[:, :1]
    turns = kinematics.rotation(palms, jnp.broadcast_to(statistics["palm"][None], palms.shape))
    palms = jnp.einsum("bxy,bky->bkx", turns, palms, precision="highest")
    count, palm = _mean(palms, jnp.broadcast_to(known[:, None, None], palms.shape))
    share = _share(count[0, 0], statistics["count"])

    angles = kinematics.angles(hands, mirrored=mirrored)
    _, abduction = _mean(angles.abduction, jnp.broadcast_to(known[:, None], angles.abduction.shape))
    # A plane is the same after half a turn, and twice its angle after a whole one.
    double = 2 * jnp.radians(angles.twist)
    double = jnp.stack([jnp.cos(double), jnp.sin(double)], axis=-1)
    bent = known[:, None] & ~angles.straight
    bent_count, twist = _mean(double, jnp.broadcast_to(bent[..., None], double.shape))
    bent_share = _share(bent_count[:, 0], statistics["bent"])
    return {
        "count": statistics["count"] + count[0, 0],
        "palm": statistics["palm"] + share * (palm - statistics["palm"]),
        "abduction": statistics["abduction"] + share * (abduction - statistics["abduction"]),
        "bent": statistics["bent"] + bent_count[:, 0],
        "twist": statistics["twist"] + bent_share[:, None] * (twist - statistics["twist"]),
    }


def neutral(statistics: Statistics) -> Float[Array, "5 2"]:
    """Mean abduction and twist of the five fingers of `updated_palm`; 0 where no finger was bent."""
    x, y = statistics["twist"][:, 0], statistics["twist"][:, 1]
    return jnp.stack([statistics["abduction"], jnp.degrees(jnp.arctan2(y, x)) / 2], axis=-1)


def _mean(values: Float[Array, "b ..."], mask: Bool[Array, "b ..."]) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """How many there are, and their mean, 0 of none."""
    count = jnp.sum(mask.astype(jnp.float32), axis=0)
    return count, jnp.sum(jnp.where(mask, values, 0.0), axis=0) / jnp.maximum(count, 1.0)


def _share(new: Float[Array, "..."], before: Float[Array, "..."]) -> Float[Array, "..."]:
    """Of the new among all."""
    return new / jnp.maximum(before + new, 1.0)
