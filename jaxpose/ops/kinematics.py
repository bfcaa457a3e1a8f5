"""Corrects poses in space that no hand can take: bones too long or short, joints bent too far.

Points are (x, y, z), z away from the camera; lengths are in units of a reference bone, so that neither the size of a
hand nor its distance matters. Angles are in degrees. A hand has the joints of `HAND21`: the wrist, then thumb, index,
middle, ring and little finger with four joints each, from base to tip; the first of them are the knuckles, the palm are
wrist and knuckles.

What is fitted to a pose before it is corrected, the rotation of the palm, counts as a constant in gradients. All
gradients are finite.

Source: Lin et al. 2023 (POST), Sec. 3.3.1, names the correction of Yang et al. 2021 (SemiHand), of which no code is
public. This is what their co-author's "hand kinematic layer" and the thesis about it do. For bodies nothing is
published: see `trees.corrected_lengths`.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from annotated_types import Interval, Predicate
from jaxtyping import Array, Bool, Float

from jaxpose.limits import AT_LEAST_0, limited
from jaxpose.ops.trees import length, unit

Hands = Float[Array, "b 21 3"]
PerFinger = Float[Array, "b 5"]
PerBone = Float[Array, "b 5 3"]  # of the three bones of each finger

_RIGHT_ANGLE = ("0 to 90 degrees", Interval(ge=0, le=90))
_THREE = ("three angles of 0 to 180 degrees", Predicate(lambda found: all(0 <= x <= 180 for x in found)))

_INDEX, _LITTLE = 1, 4
_STRAIGHT = 0.95  # cosine of what a bone is bent against the one before it, above which it shows no plane
_SHORTEST = 1e-6  # of what an angle is taken of


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """How far the joints of a hand move; the angles are those of `angles`, for each finger's joints from the base on.

    Source: the released code. Its thesis has 30 degrees of abduction, twice the slack of the fingers' plane (2 mm
    instead of 1, here by a bone of 0.1 m), and 45 degrees of flexion for the thumb, which the code bends as a finger.

    Attributes:
      flexion: towards the palm.
      extension: away from it.
      abduction: to either side.
      twist: to either side.
      palm: how far a knuckle may be from where the palm's template has it; 0: all are put there, as released.
      plane: how far a joint may be out of its finger's plane.
    """

    flexion: tuple[float, float, float] = limited((90.0, 135.0, 90.0), *_THREE)
    extension: tuple[float, float, float] = limited((45.0, 10.0, 45.0), *_THREE)
    abduction: float = limited(20.0, *_RIGHT_ANGLE)
    twist: float = limited(20.0, *_RIGHT_ANGLE)
    palm: float = limited(0.0, *AT_LEAST_0)
    plane: float = limited(0.01, *AT_LEAST_0)


class Angles(NamedTuple):
    """How the fingers of hands are bent, in degrees; at rest, all continue the bone from the wrist to the knuckle.

    Attributes:
      abduction: of the first bone out of the plane of the palm's normal and the bone before it; positive to the thumb's
        side.
      twist: of the finger's plane about its first bone, -90 to 90, 0 where the finger is straight.
      flexion: of each bone against the one before it; positive to the palm's side.
      straight: whether the finger shows no plane.
    """

    abduction: PerFinger
    twist: PerFinger
    flexion: PerBone
    straight: Bool[Array, "b 5"]


def corrected_hand(
    points3d: Hands,
    *,
    palm: Float[Array, "6 3"],
    lengths: Float[Array, "20 2"],
    mirrored: Bool[Array, " b"],
    limits: Limits | None = None,
    neutral: Float[Array, "5 2"] | None = None,
) -> Hands:
    """The poses of hands that obey all limits; one that does already stays as it is.

    The wrist stays. In this order: knuckles go to the palm's template, turned about the wrist to be nearest to them;
    each finger goes into a plane through its first bone, unless it is straight; abduction, flexion of the knuckle and
    twist are clamped, and the finger turns with its first bone; from there to the tip, bones keep their directions and
    get lengths within bounds, and flexion is clamped, what is beyond a joint turning with it.

    Four things are other than in the reference. The flexion of a knuckle is clamped before the twist, which is about
    the bone that it turns. As a twisted finger is turned and not projected, it needs not be put into a plane again. The
    plane is one through the first bone, which is therefore not moved. Abduction is not the angle about the palm's
    normal, which says nothing of a finger that is bent by a right angle: the two agree where the knuckle is straight.

    Without slacks, a second correction changes nothing. With them, palm and planes are fitted anew to what was moved,
    and joints move once more: of hands that are nearly possible, by less than the slack.

    Args:
      points3d: of right hands, or left ones where `mirrored`.
      palm: wrist and knuckles of a right hand.
      lengths: least and greatest of the bone to each joint but the wrist, in order of the joints, as in `trees.tree`.
        Those of the five bones of the palm are not read: its template says how long they are.
      mirrored: hands that are mirrored in x before they are corrected, and after.
      limits: of the angles, and slacks.
      neutral: abduction and twist of each finger, in degrees, about which their limits are; none: 0, as released. In
        400 real labels of one person (Ge et al. 2019) the thumb's twist is -59 on average.
    """
    limits = Limits() if limits is None else limits
    neutral = jnp.zeros((5, 2)) if neutral is None else jnp.radians(neutral)
    points3d = _mirrored(points3d, mirrored)
    wrist, knuckles, fingers = _parts(points3d)
    knuckles = _onto_template(knuckles, palm, limits.palm)
    axes = _axes(knuckles)
    local = jnp.einsum("bfcx,bfjx->bfjc", axes, fingers - (wrist + knuckles)[:, :, None], precision="highest")
    local = _posed(_clamped(_measured(local, neutral[:, 1], limits.plane), lengths, limits, neutral))
    fingers = jnp.einsum("bfcx,bfjc->bfjx", axes, local, precision="highest") + (wrist + knuckles)[:, :, None]
    chains = jnp.concatenate([(wrist + knuckles)[:, :, None], fingers], axis=2)
    return _mirrored(jnp.concatenate([wrist, chains.reshape(-1, 20, 3)], axis=1), mirrored)


def angles(points3d: Hands, *, mirrored: Bool[Array, " b"]) -> Angles:
    """What `corrected_hand` measures, of the hands as they are.

    Args:
      points3d: of right hands, or left ones where `mirrored`.
      mirrored: hands that are mirrored in x.
    """
    wrist, knuckles, fingers = _parts(_mirrored(points3d, mirrored))
    offsets = fingers - (wrist + knuckles)[:, :, None]
    local = jnp.einsum("bfcx,bfjx->bfjc", _axes(knuckles), offsets, precision="highest")
    found = _measured(local, jnp.zeros(5), 0.0)
    return Angles(*(jnp.degrees(x) for x in (found.abduction, found.twist, found.flexion)), straight=found.straight)


def rotation(points: Float[Array, "b n 3"], targets: Float[Array, "b n 3"]) -> Float[Array, "b 3 3"]:
    """The rotations about the origin that bring points nearest to their targets in the mean square; never reflections.

    Without gradients.

    Source: Kabsch 1976.
    """
    covariance = jnp.einsum("bnx,bny->bxy", points, targets, precision="highest")
    u, _, vt = jnp.linalg.svd(jax.lax.stop_gradient(covariance))
    u, v = jnp.swapaxes(u, -1, -2), vt
    # The third pair of axes follows from two, so that both systems turn the same way.
    first, second = (jnp.concatenate([x[:, :2], jnp.cross(x[:, 0], x[:, 1])[:, None]], axis=1) for x in (v, u))
    return jnp.einsum("bcx,bcy->bxy", first, second, precision="highest")


class _Fingers(NamedTuple):
    """A finger's joints, in radians and lengths, from which `_posed` makes points again.

    Attributes:
      abduction, twist, flexion, straight: as `Angles`.
      lengths: of the bones.
      inside, outside: the shares of a bone's direction that lie in the finger's plane, and at a right angle to it.
    """

    abduction: PerFinger
    twist: PerFinger
    flexion: PerBone
    straight: Bool[Array, "b 5"]
    lengths: PerBone
    inside: PerBone
    outside: PerBone


def _measured(local: Float[Array, "b 5 3 3"], neutral: Float[Array, " 5"], slack: float) -> _Fingers:
    """Joints of three bones, given from the knuckle in its axes; those out of the finger's plane are put back."""
    bones = jnp.diff(local, axis=2, prepend=jnp.zeros_like(local[:, :, :1]))
    lengths = length(bones)
    bend = jnp.sum(bones[:, :, 1:] * bones[:, :, :-1], axis=-1)
    straight = jnp.all(bend >= _STRAIGHT * lengths[:, :, 1:] * lengths[:, :, :-1], axis=-1)

    x, y, z = (bones[:, :, 0, axis] for axis in range(3))
    abduction, knuckle = _angle(z, length(bones[:, :, 0, :2])), _angle(y, x)
    untwisted = _finger_axes(abduction, knuckle, jnp.zeros_like(x))
    seen = jnp.einsum("bfcx,bfjx->bfjc", untwisted, local[:, :, 1:] - local[:, :, :1], precision="highest")
    # The plane through the first bone that is nearest to the other two joints.
    y, z = seen[..., 1], seen[..., 2]
    twist = _angle(2 * jnp.sum(y * z, axis=-1), jnp.sum(y * y - z * z, axis=-1)) / 2
    neutral = jnp.broadcast_to(neutral[None], twist.shape)
    twist = neutral + jnp.where(straight, 0.0, _wrapped(twist - neutral, np.pi))

    cos, sin = jnp.cos(twist)[..., None], jnp.sin(twist)[..., None]
    x, y, z = seen[..., 0], cos * y + sin * z, cos * z - sin * y
    z = jnp.where(straight[..., None], z, jnp.clip(z, -slack, slack))
    x, y, z = (jnp.diff(v, axis=-1, prepend=jnp.zeros_like(v[..., :1])) for v in (x, y, z))
    middle = _angle(y[..., 0], x[..., 0])
    cos, sin = jnp.cos(middle), jnp.sin(middle)
    last = _angle(cos * y[..., 1] - sin * x[..., 1], cos * x[..., 1] + sin * y[..., 1])

    rest = length(jnp.stack([x, y, z], axis=-1))
    some = rest > 0
    inside = jnp.where(some, length(jnp.stack([x, y], axis=-1)) / jnp.where(some, rest, 1.0), 1.0)
    outside = jnp.where(some, z / jnp.where(some, rest, 1.0), 0.0)
    first = jnp.ones_like(inside[..., :1])
    return _Fingers(
        abduction=abduction,
        twist=twist,
        flexion=jnp.stack([knuckle, middle, last], axis=-1),
        straight=straight,
        lengths=jnp.concatenate([lengths[..., :1], rest], axis=-1),
        inside=jnp.concatenate([first, inside], axis=-1),
        outside=jnp.concatenate([jnp.zeros_like(first), outside], axis=-1),
    )


def _clamped(
    fingers: _Fingers, lengths: Float[Array, "20 2"], limits: Limits, neutral: Float[Array, "5 2"]
) -> _Fingers:
    bounds = lengths.reshape(1, 5, 4, 2)[:, :, 1:]

    def within(angle: Array, low: Array, high: Array) -> Array:
        """The nearest angle of an interval, the short way round."""
        middle, half = (low + high) / 2, (high - low) / 2
        return middle + jnp.clip(_wrapped(angle - middle, 2 * np.pi), -half, half)

    abduction, twist = (np.radians(x).astype(np.float32) for x in (limits.abduction, limits.twist))
    extension, flexion = (
        jnp.radians(jnp.asarray(x, jnp.float32))[None, None] for x in (limits.extension, limits.flexion)
    )
    return fingers._replace(
        abduction=within(fingers.abduction, neutral[None, :, 0] - abduction, neutral[None, :, 0] + abduction),
        twist=within(fingers.twist, neutral[None, :, 1] - twist, neutral[None, :, 1] + twist),
        flexion=within(fingers.flexion, -extension, flexion),
        lengths=jnp.clip(fingers.lengths, bounds[..., 0], bounds[..., 1]),
    )


def _posed(fingers: _Fingers) -> Float[Array, "b 5 3 3"]:
    """The joints from the knuckle in its axes; inverse of `_measured` but for what that puts into the plane."""
    # In the finger's own axes, of which the first bone is one: how it is bent itself is in them.
    bent = jnp.cumsum(fingers.flexion.at[..., 0].set(0.0), axis=-1)
    inside = fingers.inside * fingers.lengths
    bones = jnp.stack([inside * jnp.cos(bent), inside * jnp.sin(bent), fingers.outside * fingers.lengths], axis=-1)
    axes = _finger_axes(fingers.abduction, fingers.flexion[..., 0], fingers.twist)
    return jnp.einsum("bfcx,bfjc->bfjx", axes, jnp.cumsum(bones, axis=2), precision="highest")


def _finger_axes(abduction: PerFinger, flexion: PerFinger, twist: PerFinger) -> Float[Array, "b 5 3 3"]:
    """In a knuckle's axes: the first bone, where it is bent to, and the hinge about which it is bent."""
    (ca, cf, ct), (sa, sf, st) = ([f(x) for x in (abduction, flexion, twist)] for f in (jnp.cos, jnp.sin))
    along = jnp.stack([ca * cf, ca * sf, sa], axis=-1)
    towards = jnp.stack([-sf, cf, jnp.zeros_like(cf)], axis=-1)
    hinge = jnp.stack([-sa * cf, -sa * sf, ca], axis=-1)
    ct, st = ct[..., None], st[..., None]
    return jnp.stack([along, ct * towards + st * hinge, ct * hinge - st * towards], axis=-2)


def _axes(knuckles: Float[Array, "b 5 3"]) -> Float[Array, "b 5 3 3"]:
    """Of each knuckle of right hands: the bone to it, the palm's normal to where fingers bend, and the thumb's side."""
    along = unit(knuckles, _axis(knuckles, 1))
    normal = jnp.cross(knuckles[:, _INDEX], knuckles[:, _LITTLE])[:, None]
    normal = normal - jnp.sum(normal * along, axis=-1, keepdims=True) * along
    # Where the palm shows no normal, any that there can be.
    least = jnp.where(jnp.abs(along[..., :1]) < 0.7, _axis(along, 0), _axis(along, 2))
    normal = unit(normal, unit(jnp.cross(along, least), least))
    return jnp.stack([along, normal, jnp.cross(along, normal)], axis=-2)


def _onto_template(knuckles: PerBone, palm: Float[Array, "6 3"], slack: float) -> Float[Array, "b 5 3"]:
    """Knuckles, given from the wrist, no farther than `slack` from a template that is turned to be nearest to them."""
    template = jnp.broadcast_to((palm[1:] - palm[:1])[None], knuckles.shape)
    turned = jnp.einsum("bxy,bfy->bfx", rotation(template, knuckles), template, precision="highest")
    distance = length(knuckles - turned)
    far = distance > slack
    kept = jnp.where(far, slack / jnp.where(far, distance, 1.0), 1.0)
    return turned + kept[..., None] * (knuckles - turned)


def _parts(hands: Hands) -> tuple[Float[Array, "b 1 3"], Float[Array, "b 5 3"], Float[Array, "b 5 3 3"]]:
    """The wrist, the knuckles from there, and the other joints of the fingers."""
    chains = hands[:, 1:].reshape(-1, 5, 4, 3)
    return hands[:, :1], chains[:, :, 0] - hands[:, :1], chains[:, :, 1:]


def _mirrored(hands: Hands, mirrored: Bool[Array, " b"]) -> Hands:
    return hands.at[..., 0].multiply(jnp.where(mirrored, -1.0, 1.0)[:, None])


def _axis(like: Float[Array, "*b 3"], axis: int) -> Float[Array, "*b 3"]:
    return jnp.broadcast_to(jnp.asarray(np.eye(3, dtype=np.float32)[axis]), like.shape)


def _angle(y: Float[Array, "*b"], x: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """The angle of (x, y), 0 for the origin, with a finite slope everywhere."""
    seen = jnp.square(x) + jnp.square(y) > _SHORTEST**2
    return jnp.arctan2(jnp.where(seen, y, 0.0), jnp.where(seen, x, 1.0))


def _wrapped(angle: Float[Array, "*b"], period: float) -> Float[Array, "*b"]:
    return angle - period * jnp.round(angle / period)
