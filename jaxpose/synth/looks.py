"""How people look: their bodies, skin, hair, clothes, and the light on them."""

from typing import Any

import numpy as np

from jaxpose.synth import backgrounds
from jaxpose.synth.body import Body, changes, shape, vertex_normals


def person(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, bool]:
    """A body at rest: vertices (V, 3) and where bones begin (B, 3) in metres, and whether it is a woman's or girl's.

    Mostly adults, some children.
    """
    child = rng.random() < 0.15
    gender = float(np.clip(rng.choice((0.05, 0.95)) + rng.normal(0, 0.08), 0, 1))
    muscle, weight, proportions, cup, firm = np.clip(rng.normal(0.5, (0.18, 0.2, 0.2, 0.2, 0.2)), 0, 1)
    origin = rng.dirichlet((0.6, 0.6, 0.6))
    phenotypes = {
        "age": rng.uniform(0.18, 0.5) if child else float(np.clip(rng.normal(0.7, 0.12), 0.52, 1)),
        "gender": gender,
        "muscle": muscle,
        "weight": weight,
        "height": float(np.clip(rng.normal(0.47, 0.07), 0.3, 0.65)),
        "proportions": proportions,
        "cupsize": cup,
        "firmness": firm,
        "african": origin[0],
        "asian": origin[1],
        "caucasian": origin[2],
    }
    names = changes()
    # Changes of one side come with those of the other.
    chosen = rng.choice(len(names), size=24, replace=False)
    local = {}
    for i in chosen:
        amount = float(np.clip(rng.normal(0, 0.35), -0.8, 0.8))
        name = names[i]
        local[name] = amount
        if name.startswith(("l-", "r-")):
            twin = ("r-" if name[0] == "l" else "l-") + name[2:]
            if twin in names:
                local[twin] = amount
    for name in ("stomach-pregnant-incr", "pelvis-tone-incr", "bulge-incr"):
        local.pop(name, None)
    return *shape(phenotypes, local), gender > 0.5


def outfit(rng: np.random.Generator, kind: str, female: bool) -> dict[str, Any]:
    """Colours and clothes, the fields of the kernels' `Look`.

    Args:
      rng: what is random.
      kind: `body` or `hand`; before the camera of hands sleeves are shorter.
      female: makes long hair and no beard more likely.
    """
    tone = rng.beta(1.1, 1.1) * (len(_SKIN) - 1)
    k = int(min(tone, len(_SKIN) - 2))
    skin = _SKIN[k] + (tone - k) * (_SKIN[k + 1] - _SKIN[k])
    skin = np.clip(skin * rng.normal(1, 0.03, 3) * rng.uniform(0.92, 1.06), 0, 1)
    hair = np.clip(_HAIR[rng.choice(len(_HAIR), p=_HAIR_ODDS)] * rng.uniform(0.7, 1.25), 0, 1)
    palm = 0.6 * skin + 0.4 * np.array((0.93, 0.70, 0.60))
    cloth = [backgrounds.colour(rng, 0.95) for _ in range(6)]
    if rng.random() < 0.3:  # jeans
        cloth[2] = np.array((0.18, 0.25, 0.42)) * rng.uniform(0.6, 1.7)
    if rng.random() < 0.4:  # dark or white shoes
        cloth[4] = np.array((1, 1, 1)) * rng.choice((0.08, 0.12, 0.9))
    style = rng.random()
    if style < 0.12:  # tight or one-piece
        cloth[2], hem = cloth[0], 0.12
    else:
        hem = rng.uniform(0.0, 0.19)
    sleeve = rng.choice((0.1, rng.uniform(0.35, 0.7), rng.uniform(1.5, 1.97), 1.97), p=(0.12, 0.43, 0.15, 0.3))
    if kind == "hand":
        sleeve = rng.choice((0.4, rng.uniform(1.0, 1.9), 1.95), p=(0.45, 0.3, 0.25))
    trouser = rng.choice((rng.uniform(0.35, 0.85), rng.uniform(1.2, 1.6), 1.95), p=(0.3, 0.1, 0.6))
    bald = rng.random() < (0.03 if female else 0.15)
    bearded = 0.0 if female else rng.choice((0, rng.uniform(0.1, 0.5), 0.95), p=(0.5, 0.3, 0.2))
    linear = backgrounds.linear
    return {
        "skin": linear(skin),
        "palm": linear(palm),
        "lip": linear(skin * (0.93, 0.7, 0.69) + (0.01, 0, 0)),
        "nail": linear(np.clip(0.7 * skin + (0.26, 0.19, 0.19), 0, 1)),
        "hair": linear(hair),
        "brow": linear(0.75 * hair * (0.6 if hair.mean() > 0.5 else 1.0) + 0.12 * skin),
        "iris": linear(_IRIS[rng.integers(len(_IRIS))]),
        "top": linear(cloth[0]),
        "top_dye": linear(cloth[1]),
        "bottom": linear(cloth[2]),
        "bottom_dye": linear(cloth[3]),
        "shoe": linear(cloth[4]),
        "sole": linear(cloth[5] if rng.random() < 0.4 else cloth[4] * 0.5),
        "glove": linear(backgrounds.colour(rng, 0.8)),
        "sleeve": float(sleeve),
        "hem": float(hem),
        "neckline": float(rng.uniform(0.675, 0.735)),
        "collar": float(rng.choice((0.035, rng.uniform(0.04, 0.075)))),
        "scoop": float(rng.choice((0.0, rng.uniform(0.03, 0.1)))),
        "waist": float(rng.uniform(0.19, 0.27)),
        "trouser": float(trouser),
        "shaft": float(rng.choice((rng.uniform(1.93, 2.05), rng.uniform(1.4, 1.8), 9.0), p=(0.75, 0.15, 0.1))),
        "cuff": 2.03 if rng.random() < (0.05 if kind == "body" else 0.06) else 9.0,
        "hairline": 9.0 if bald else float(rng.uniform(-0.012, 0.012)),
        "length": float(rng.uniform(0.72, 0.86)),
        "stubble": float(bearded),
        "top_pattern": int(rng.choice(6, p=(0.5, 0.14, 0.08, 0.1, 0.1, 0.08))),
        "bottom_pattern": int(rng.choice(6, p=(0.78, 0.02, 0.05, 0.05, 0.07, 0.03))),
        "top_scale": float(np.exp(rng.uniform(np.log(0.025), np.log(0.2)))),
        "bottom_scale": float(np.exp(rng.uniform(np.log(0.025), np.log(0.15)))),
        "folds": float(rng.uniform(0.15, 0.8)),
        "seed": int(rng.integers(1 << 30)),
    }


def pieces(rng: np.random.Generator, body: Body, look: dict[str, Any], female: bool) -> np.ndarray:
    """Which faces are drawn, uint8 (F,): 1 if seen from outside, 2 if from both sides, as skirts and long hair are.

    Under a skirt, the legs take its colour in `look`.
    """
    drawn = (body.pieces == 0).astype(np.uint8)
    centre = body.template[body.faces].mean(axis=1)
    if rng.random() < (0.35 if female else 0.03):
        length = rng.uniform(0.45, 1.6)
        knee = body.heads[body.index("lowerleg01_L"), 2]
        top = body.heads[body.index("upperleg01_L"), 2]
        drawn[(body.pieces == 1) & (centre[:, 2] > top + length * (knee - top))] = 2
        look["trouser"] = length - 0.08
        look["hem"] = max(look["hem"], 0.12)
        if rng.random() < 0.5:  # a dress
            for field in ("bottom", "bottom_dye", "bottom_pattern", "bottom_scale"):
                look[field] = look[field.replace("bottom", "top")]
    if look["hairline"] < 1 and rng.random() < (0.55 if female else 0.06):
        eyes = body.heads[body.index("eye_L")]
        length = rng.uniform(0.5, 0.78)
        behind = centre[:, 1] > eyes[1] + np.where(centre[:, 2] > eyes[2] + 0.055, 0.02, 0.085)
        drawn[(body.pieces == 2) & behind & (centre[:, 2] > length)] = 2
        look["length"] = 0.0
    return drawn


def dressed(rng: np.random.Generator, body: Body, rest: np.ndarray, look: dict[str, Any]) -> np.ndarray:
    """The person's mesh with the volume of clothes, shoes and hair, (V, 3); bones and joints stay."""
    arm, leg, head, eyeball = body.fields.T
    z = body.template[:, 2]
    thick = np.zeros(len(rest))
    loose, baggy = rng.uniform(0.004, 0.02), rng.uniform(0.004, 0.03)
    trunk = (arm < 0.12) & (leg < 0.5) & (leg > -0.9)
    upper = look["neckline"] + 1.2 * np.clip(np.abs(body.template[:, 0]) - look["collar"], 0, None)
    limb = np.clip(0.6 + 0.5 * np.clip(arm, 0, 2) / max(look["sleeve"], 0.3), 0, 1.1)
    thick = np.where((arm >= 0) & (arm < look["sleeve"]), loose * limb + 0.003, thick)
    thick = np.where(trunk & (z > look["hem"]) & (z < upper), loose * _ramp(z, 0.62, 0.3) + 0.003, thick)
    bottom = (leg > -0.5) & (leg < look["trouser"]) & (z < look["waist"])
    widening = np.clip(0.35 + 0.6 * np.clip(leg, 0, 2), 0, 1.3)
    below = np.where(z > look["hem"], 0.002, 0.004 + baggy * widening)
    thick = np.where(bottom & (z < 0.12), np.maximum(thick, below), np.where(bottom, thick + below * 0.3, thick))
    thick = np.where(leg > look["shaft"], 0.007 + 0.004 * (body.paint[:, 3] > 0.5), thick)
    hand = arm > look["cuff"]
    thick = np.where(hand, 0.0015, thick)
    if look["hairline"] < 1:
        # Hair rises from its edge and lies in a few large waves.
        volume = rng.choice((0.004, rng.uniform(0.008, 0.02), rng.uniform(0.02, 0.045)), p=(0.3, 0.45, 0.25))
        waves = np.sin(body.template @ rng.normal(0, 45, (3, 4)) + rng.uniform(0, 6, 4)).mean(axis=1)
        over = np.clip((body.paint[:, 2] - look["hairline"]) / 0.03, 0, 1) * _ramp(-z, -look["length"], 0.03)
        hair = (head > 0.5) & (eyeball == 0) & (body.paint[:, 2] > look["hairline"])
        thick = np.where(hair, volume * over * (1 + 0.5 * waves), thick)
    thick = np.where(body.paint[:, 0] < -0.5, 0.006, thick)
    thick = np.where((body.paint[:, 0] > 0.5) & (head < 0.5), 0.006 + 0.5 * loose, thick)
    size = np.ptp(rest[:, 2]) / np.ptp(body.template[:, 2])
    return rest + (size * thick)[:, None] * vertex_normals(rest, body.faces)


def lights(rng: np.random.Generator, towards_camera: np.ndarray) -> dict[str, Any]:
    """Sun and sky, the fields of the kernels' `Scene` that concern light.

    Args:
      rng: what is random.
      towards_camera: horizontal unit vector from the person, shape (3,); the sun is more often on that side.
    """
    side = rng.normal(0, 1.1)
    height = np.radians(rng.uniform(18, 80))
    cos, sin = np.cos(side), np.sin(side)
    flat = np.array(((cos, -sin, 0), (sin, cos, 0), (0, 0, 1))) @ towards_camera
    sun = np.array((*(flat[:2] * np.cos(height)), np.sin(height)))
    sun /= np.linalg.norm(sun)
    hard = rng.uniform(0.1, 0.85)
    warm = rng.normal(0, 0.07)
    tint = np.array((1 + warm, 1.0, 1 - warm))
    exposure = np.exp(rng.normal(0.12, 0.16))
    side_axis = np.cross((0, 0, 1.0), sun)
    side_axis = side_axis / (np.linalg.norm(side_axis) + 1e-9)
    return {
        "sun": sun,
        "sun_colour": exposure * 1.35 * hard * tint,
        "sky": exposure * (0.95 - 0.75 * hard) * tint[::-1],
        "ground": exposure * (0.75 - 0.6 * hard) * rng.uniform(0.45, 0.9) * tint,
        "light": np.stack((side_axis, np.cross(sun, side_axis), sun)),
        "softness": float(rng.uniform(0.004, 0.05)),
    }


def _ramp(z: np.ndarray, start: float, width: float) -> np.ndarray:
    """1 well below `start`, falling to 0 over `width` above it."""
    return np.clip(1 - (z - start) / width, 0, 1)


_SKIN = (
    np.array(
        (
            (255, 226, 205),
            (243, 201, 172),
            (224, 174, 138),
            (198, 142, 104),
            (158, 106, 73),
            (112, 72, 48),
            (72, 46, 34),
        )
    )
    / 255
)
_HAIR = np.array(
    ((22, 18, 16), (48, 33, 24), (84, 56, 36), (128, 88, 52), (190, 150, 96), (226, 200, 150), (140, 60, 30),
     (150, 150, 150), (215, 215, 212), (120, 60, 140))
) / 255  # fmt: skip
_HAIR_ODDS = np.array((0.25, 0.22, 0.15, 0.1, 0.07, 0.05, 0.04, 0.06, 0.05, 0.01))
_IRIS = np.array(((70, 45, 25), (95, 65, 35), (80, 100, 60), (90, 120, 150), (60, 50, 45))) / 255
