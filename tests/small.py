"""A small rig as a BVH, written by hand: what the tests of motions read."""

# Offset from the parent in the file's units, y up; end sites have the offset of `Head_end`.
CMU = {
    "Hips": ("", (0, 0, 0)),
    "LeftHip": ("Hips", (2, -1, 0)),
    "LeftKnee": ("LeftHip", (0, -7, 0)),
    "LeftAnkle": ("LeftKnee", (0, -8, 0)),
    "LeftToe": ("LeftAnkle", (0, -1, 2)),
    "RightHip": ("Hips", (-2, -1, 0)),
    "RightKnee": ("RightHip", (0, -7, 0)),
    "RightAnkle": ("RightKnee", (0, -8, 0)),
    "RightToe": ("RightAnkle", (0, -1, 2)),
    "Chest": ("Hips", (0, 8, 0)),
    "LeftCollar": ("Chest", (1, 0, 0)),
    "LeftShoulder": ("LeftCollar", (2, 0, 0)),
    "LeftElbow": ("LeftShoulder", (5, 0, 0)),
    "LeftWrist": ("LeftElbow", (4, 0, 0)),
    "RightCollar": ("Chest", (-1, 0, 0)),
    "RightShoulder": ("RightCollar", (-2, 0, 0)),
    "RightElbow": ("RightShoulder", (-5, 0, 0)),
    "RightWrist": ("RightElbow", (-4, 0, 0)),
    "Neck": ("Chest", (0, 1, 0)),
    "Head": ("Neck", (0, 1, 0)),
}
HEAD_END = (0, 3, 1)

# The same body with the names of Bandai-Namco's rig.
BANDAI = {
    "Hip": "UpperLeg",
    "Knee": "LowerLeg",
    "Ankle": "Foot",
    "Toe": "Toes",
    "Collar": "Shoulder",
    "Shoulder": "UpperArm",
}
BANDAI |= {"Elbow": "LowerArm", "Wrist": "Hand"}


def bandai_name(name):
    for side in ("Left", "Right"):
        if name.startswith(side):
            return f"{BANDAI[name.removeprefix(side)]}_{side[0]}"
    return name


def bvh(places, *, seconds=0.0083333, name=lambda joint: joint):
    """A file whose root is at the given places and in which nothing turns."""

    def block(joint, depth):
        parent, offset = CMU[joint]
        kind = "JOINT" if parent else "ROOT"
        channels = "6 Xposition Yposition Zposition Zrotation Yrotation Xrotation"
        lines = [f"{kind} {name(joint)}", "{", "OFFSET {} {} {}".format(*offset)]
        lines.append(f"CHANNELS {channels if not parent else '3 Zrotation Yrotation Xrotation'}")
        children = [child for child, (above, _) in CMU.items() if above == joint]
        for child in children:
            lines += block(child, depth + 1)
        if not children:
            lines += ["End Site", "{", "OFFSET {} {} {}".format(*HEAD_END), "}"]
        return [*lines, "}"]

    zeros = "0 " * (3 * len(CMU))
    rows = ["{} {} {} {}".format(*place, zeros) for place in places]
    head = ["HIERARCHY", *block("Hips", 0), "MOTION", f"Frames: {len(places)}", f"Frame Time: {seconds}"]
    return "\n".join([*head, *rows]) + "\n"
