"""A skeleton with everything that skeletons can have."""

from jaxpose.data.joints.skeletons import Skeleton

SKELETON = Skeleton(
    name="two",
    joints=("left", "right"),
    bones=(("left", "right"),),
    flips=(("left", "right"),),
    groups={"hands": ("left", "right")},
    sigmas=(0.1, 0.2),
)
