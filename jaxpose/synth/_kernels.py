"""Warp kernels that skin, rasterise and shade bodies. Imported on demand: this is the one module that needs warp.

Signatures carry warp's types, which only its compiler reads, hence `no_type_check`.
"""

# The extra is optional: type checks pass without it.
# pyright: reportMissingImports=false

from typing import no_type_check

import warp as wp

wp.set_module_options({"enable_backward": False, "fast_math": True})

SAMPLES = wp.constant(2)  # per pixel and axis
FACE_BITS = wp.constant(wp.int64(1 << 17))  # a key of the visibility buffer is nearness, then the face
NEARNESS = wp.constant(1.0e8)


@wp.struct
@no_type_check
class Look:
    """What a person wears and how skin, hair and cloth are coloured; colours are linear RGB.

    Lengths and heights are metres of the template body, arm and leg are the coordinates of `body.Body`.
    """

    skin: wp.vec3
    palm: wp.vec3
    lip: wp.vec3
    nail: wp.vec3
    hair: wp.vec3
    brow: wp.vec3
    iris: wp.vec3
    top: wp.vec3
    top_dye: wp.vec3
    bottom: wp.vec3
    bottom_dye: wp.vec3
    shoe: wp.vec3
    sole: wp.vec3
    glove: wp.vec3
    sleeve: float  # the arm is covered up to here
    hem: float  # height of the top's lower end
    neckline: float  # height of the top's upper end
    collar: float  # half of its width there
    scoop: float  # how much deeper it is in front
    waist: float  # height of the upper end of the trousers
    trouser: float  # the leg is covered up to here
    shaft: float  # shoes begin here on the leg
    cuff: float  # gloves begin here on the arm
    hairline: float  # larger: more forehead
    length: float  # height down to which hair hangs
    stubble: float  # 0 to 1
    top_pattern: int
    bottom_pattern: int
    top_scale: float  # metres
    bottom_scale: float
    folds: float
    seed: int


@wp.struct
@no_type_check
class Scene:
    """Camera, light and surroundings of one frame; the world's z points up."""

    rotation: wp.mat33  # world to camera
    eye: wp.vec3
    focal: float
    centre: wp.vec2
    sun: wp.vec3  # unit vector towards it
    sun_colour: wp.vec3
    sky: wp.vec3
    ground: wp.vec3
    light: wp.mat33  # world to the frame of the sun's map, whose third row points to the sun
    middle: wp.vec3  # what both maps are centred on
    reach: float  # half of their side in metres
    softness: float  # radius of the sun's penumbra in metres
    floor: int  # 0: none, 1: only darkens the background, 2: textured
    floor_height: float
    floor_colour: wp.vec3
    floor_dye: wp.vec3
    floor_pattern: int
    floor_scale: float
    wall: float  # distance of a textured back wall behind the world's origin, 0: none
    wall_normal: wp.vec3
    wall_colour: wp.vec3
    wall_dye: wp.vec3
    wall_pattern: int
    wall_scale: float
    seed: int


@wp.kernel
@no_type_check
def skin(
    rest: wp.array(dtype=wp.vec3),
    bones: wp.array(dtype=wp.int32, ndim=2),
    weights: wp.array(dtype=wp.float32, ndim=2),
    transforms: wp.array(dtype=wp.float32, ndim=4),
    vertices: wp.array(dtype=wp.vec3, ndim=2),
):
    """Linear blend skinning: V vertices in each of T frames."""
    t, v = wp.tid()
    x = rest[v]
    moved = wp.vec3(0.0, 0.0, 0.0)
    for k in range(weights.shape[1]):
        w = weights[v, k]
        if w > 0.0:
            b = bones[v, k]
            moved += w * wp.vec3(
                transforms[t, b, 0, 0] * x[0]
                + transforms[t, b, 0, 1] * x[1]
                + transforms[t, b, 0, 2] * x[2]
                + transforms[t, b, 0, 3],
                transforms[t, b, 1, 0] * x[0]
                + transforms[t, b, 1, 1] * x[1]
                + transforms[t, b, 1, 2] * x[2]
                + transforms[t, b, 1, 3],
                transforms[t, b, 2, 0] * x[0]
                + transforms[t, b, 2, 1] * x[1]
                + transforms[t, b, 2, 2] * x[2]
                + transforms[t, b, 2, 3],
            )
    vertices[t, v] = moved


@wp.kernel
@no_type_check
def add_normals(
    vertices: wp.array(dtype=wp.vec3), faces: wp.array(dtype=wp.int32, ndim=2), normals: wp.array(dtype=wp.vec3)
):
    """Adds the area vector of every face to its vertices."""
    f = wp.tid()
    i, j, k = faces[f, 0], faces[f, 1], faces[f, 2]
    n = wp.cross(vertices[j] - vertices[i], vertices[k] - vertices[i])
    wp.atomic_add(normals, i, n)
    wp.atomic_add(normals, j, n)
    wp.atomic_add(normals, k, n)


@wp.kernel
@no_type_check
def project(
    vertices: wp.array(dtype=wp.vec3),
    scene: Scene,
    size: float,
    camera: wp.array(dtype=wp.vec3),
    sun: wp.array(dtype=wp.vec3),
    above: wp.array(dtype=wp.vec3),
):
    """Places vertices in three buffers, (x, y, nearness): the camera's, the sun's and one seen from above."""
    v = wp.tid()
    x = vertices[v]
    p = scene.rotation * (x - scene.eye)
    s = float(SAMPLES)
    near = 0.0
    if p[2] > 0.03:
        near = 1.0 / p[2]
    camera[v] = wp.vec3(
        (scene.focal * p[0] * near + scene.centre[0] + 0.5) * s - 0.5,
        (scene.focal * p[1] * near + scene.centre[1] + 0.5) * s - 0.5,
        near,
    )
    unit = 0.5 * size / scene.reach
    d = x - scene.middle
    q = scene.light * d
    sun[v] = wp.vec3(q[0] * unit + 0.5 * size, q[1] * unit + 0.5 * size, q[2] + 4.0)
    above[v] = wp.vec3(d[0] * unit + 0.5 * size, d[1] * unit + 0.5 * size, d[2] + 4.0)


@wp.kernel
@no_type_check
def rasterise(
    points: wp.array(dtype=wp.vec3),
    faces: wp.array(dtype=wp.int32, ndim=2),
    drawn: wp.array(dtype=wp.uint8),
    cull: int,
    keys: wp.array(dtype=wp.int64, ndim=2),
):
    """Writes the nearest face of every sample."""
    f = wp.tid()
    if drawn[f] == wp.uint8(0):
        return
    a = points[faces[f, 0]]
    b = points[faces[f, 1]]
    c = points[faces[f, 2]]
    if wp.min(a[2], wp.min(b[2], c[2])) <= 0.0:
        return
    area = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
    # Faces marked 2 belong to sheets, which are seen from both sides.
    if area == 0.0 or (cull == 1 and area > 0.0 and drawn[f] == wp.uint8(1)):
        return
    x0 = wp.max(int(wp.ceil(wp.min(a[0], wp.min(b[0], c[0])))), 0)
    y0 = wp.max(int(wp.ceil(wp.min(a[1], wp.min(b[1], c[1])))), 0)
    x1 = wp.min(int(wp.floor(wp.max(a[0], wp.max(b[0], c[0])))), keys.shape[1] - 1)
    y1 = wp.min(int(wp.floor(wp.max(a[1], wp.max(b[1], c[1])))), keys.shape[0] - 1)
    for y in range(y0, y1 + 1):
        for x in range(x0, x1 + 1):
            px = float(x)
            py = float(y)
            u = ((b[0] - px) * (c[1] - py) - (b[1] - py) * (c[0] - px)) / area
            v = ((c[0] - px) * (a[1] - py) - (c[1] - py) * (a[0] - px)) / area
            w = 1.0 - u - v
            if u >= 0.0 and v >= 0.0 and w >= 0.0:
                near = u * a[2] + v * b[2] + w * c[2]
                wp.atomic_max(keys, y, x, wp.int64(near * NEARNESS) * FACE_BITS + wp.int64(f))


@wp.func
@no_type_check
def lit(keys: wp.array(dtype=wp.int64, ndim=2), x: float, y: float, height: float, radius: float) -> float:
    """The fraction of nine samples around (x, y) of a map that nothing above `height` covers."""
    total = 0.0
    for i in range(3):
        for j in range(3):
            u = int(x + radius * (float(i) - 1.0) + 0.5)
            v = int(y + radius * (float(j) - 1.0) + 0.5)
            clear = 1.0
            if u >= 0 and v >= 0 and u < keys.shape[1] and v < keys.shape[0]:
                key = keys[v, u]
                if key > wp.int64(0) and float(key / FACE_BITS) / NEARNESS > height:
                    clear = 0.0
            total += clear
    return total / 9.0


@wp.func
@no_type_check
def shadow(scene: Scene, keys: wp.array(dtype=wp.int64, ndim=2), p: wp.vec3, bias: float) -> float:
    """How much of the sun a point sees."""
    size = float(keys.shape[0])
    unit = 0.5 * size / scene.reach
    q = scene.light * (p - scene.middle)
    return lit(keys, q[0] * unit + 0.5 * size, q[1] * unit + 0.5 * size, q[2] + 4.0 + bias, scene.softness * unit)


@wp.func
@no_type_check
def openness(scene: Scene, keys: wp.array(dtype=wp.int64, ndim=2), p: wp.vec3, radius: float) -> float:
    """How much of the sky a point sees, judged by what lies straight above."""
    size = float(keys.shape[0])
    unit = 0.5 * size / scene.reach
    d = p - scene.middle
    return lit(keys, d[0] * unit + 0.5 * size, d[1] * unit + 0.5 * size, d[2] + 4.03, radius * unit)


@wp.func
@no_type_check
def pattern(kind: int, u: float, v: float, scale: float, seed: int) -> float:
    """How much dye a cloth or a floor has at (u, v): 0 or 1 in most patterns."""
    a = u / scale
    b = v / scale
    if kind == 1:  # stripes along v
        return wp.where(a - wp.floor(a) < 0.5, 0.0, 1.0)
    if kind == 2:  # stripes along u
        return wp.where(b - wp.floor(b) < 0.35, 1.0, 0.0)
    if kind == 3:  # checks
        return 0.5 * wp.where(a - wp.floor(a) < 0.5, 0.0, 1.0) + 0.5 * wp.where(b - wp.floor(b) < 0.5, 0.0, 1.0)
    if kind == 4:  # blotches
        state = wp.rand_init(seed)
        n = wp.noise(state, wp.vec2(a * 0.7, b * 0.7)) + 0.5 * wp.noise(state, wp.vec2(a * 1.9, b * 1.9))
        return wp.where(n > 0.08, 1.0, 0.0)
    if kind == 5:  # dots
        x = a - wp.floor(a) - 0.5
        y = b - wp.floor(b) - 0.5
        return wp.where(x * x + y * y < 0.06, 1.0, 0.0)
    if kind == 6:  # tiles with joints
        x = a - wp.floor(a)
        y = b - wp.floor(b)
        return wp.where(wp.min(x, y) < 0.05, 1.0, 0.0)
    if kind == 7:  # grain
        state = wp.rand_init(seed)
        n = wp.noise(state, wp.vec2(a, b * 0.2)) + 0.6 * wp.noise(state, wp.vec2(a * 2.7, b * 0.5))
        return wp.clamp(0.5 + n, 0.0, 1.0)
    return 0.0


@wp.func
@no_type_check
def mixed(a: wp.vec3, b: wp.vec3, t: float) -> wp.vec3:
    """From a at t = 0 to b at t = 1."""
    return a * (1.0 - t) + b * t


@wp.func
@no_type_check
def surface(look: Look, p: wp.vec3, fields: wp.vec4, paint: wp.vec4, part: int) -> wp.vec4:
    """Colour of a point of the body, and 0 for skin, 1 for cloth, 2 for hair, 3 for what is wet.

    Args:
      look: colours and lengths.
      p: the point of the template.
      fields: arm, leg, side of the head (1 on it), eyeball (1 on it).
      paint: see `body.Body`.
      part: its number.
    """
    arm = fields[0]
    leg = fields[1]
    if fields[3] > 0.9:
        if paint[0] > 0.9:
            return wp.vec4(0.01, 0.01, 0.01, 3.0)
        if paint[0] > 0.55:
            return wp.vec4(look.iris[0], look.iris[1], look.iris[2], 3.0)
        return wp.vec4(0.5, 0.48, 0.46, 3.0)
    if paint[0] < -0.5:
        return wp.vec4(look.hair[0], look.hair[1], look.hair[2], 2.0)
    u = p[2]
    v = p[0]
    if paint[0] > 0.5 and fields[2] < 0.5:
        dye = pattern(look.bottom_pattern, u, v + p[1], look.bottom_scale, look.seed + 1)
        colour = mixed(look.bottom, look.bottom_dye, dye)
        return wp.vec4(colour[0], colour[1], colour[2], 1.0)
    colour = look.skin
    kind = 0.0
    if fields[2] > 0.5:
        if paint[3] > 0.5:
            colour = look.brow
        colour = mixed(colour, look.lip, wp.clamp(paint[0], 0.0, 1.0))
        # the hairline: an arc over the forehead, then down behind the ears
        state = wp.rand_init(look.seed + 2)
        ragged = 0.006 * wp.noise(state, p * 120.0)
        if paint[2] > look.hairline + ragged and p[2] > look.length:
            colour = look.hair
            kind = 2.0
        elif look.stubble > 0.0 and paint[1] > 0.5:
            colour = mixed(colour, look.hair, look.stubble * wp.clamp(2.0 * paint[1] - 1.0, 0.0, 1.0))
        return wp.vec4(colour[0], colour[1], colour[2], kind)
    if arm > 1.9:
        colour = mixed(mixed(colour, look.palm, paint[2]), look.nail, paint[1])
    if leg > look.shaft:
        colour = wp.where(paint[3] > 0.5, look.sole, look.shoe)
        return wp.vec4(colour[0], colour[1], colour[2], 1.0)
    if arm > look.cuff:
        return wp.vec4(look.glove[0], look.glove[1], look.glove[2], 1.0)
    if arm > 0.0:
        u = 0.3 * arm
        v = p[1]
    front = wp.clamp(0.5 - 6.0 * p[1], 0.0, 1.0)
    deep = look.scoop * front * wp.max(1.0 - 9.0 * wp.abs(p[0]), 0.0)
    collar = 1.2 * wp.max(wp.abs(p[0]) - look.collar, 0.0)
    if arm < look.sleeve and p[2] > look.hem and (arm > 0.12 or p[2] < look.neckline - deep + collar):
        colour = mixed(look.top, look.top_dye, pattern(look.top_pattern, u, v, look.top_scale, look.seed))
        kind = 1.0
    elif leg > -0.5 and leg < look.trouser and p[2] < look.waist:
        dye = pattern(look.bottom_pattern, p[2], p[0] + p[1], look.bottom_scale, look.seed + 1)
        colour = mixed(look.bottom, look.bottom_dye, dye)
        kind = 1.0
    return wp.vec4(colour[0], colour[1], colour[2], kind)


@wp.func
@no_type_check
def painted_sheet(paint: wp.vec4) -> bool:
    """Whether a vertex is one of a skirt or of long hair (lips are skin as well, but never seen from behind)."""
    return wp.abs(paint[0]) > 0.5


@wp.func
@no_type_check
def surroundings(
    scene: Scene,
    ray: wp.vec3,
    behind: wp.vec3,
    sun_map: wp.array(dtype=wp.int64, ndim=2),
    above_map: wp.array(dtype=wp.int64, ndim=2),
) -> wp.vec3:
    """The colour that a camera ray (in the world) finds beside the body."""
    if scene.floor == 0:
        return behind
    colour = behind
    reach = 1.0e9
    if ray[2] < -1.0e-4:
        reach = (scene.floor_height - scene.eye[2]) / ray[2]
    if scene.wall > 0.0:
        slope = wp.dot(ray, scene.wall_normal)
        if slope < -1.0e-4:
            far = (-scene.wall - wp.dot(scene.eye, scene.wall_normal)) / slope
            if far > 0.0 and far < reach:
                p = scene.eye + far * ray
                along = p[0] * scene.wall_normal[1] - p[1] * scene.wall_normal[0]
                dye = pattern(scene.wall_pattern, p[2], along, scene.wall_scale, scene.seed + 5)
                base = mixed(scene.wall_colour, scene.wall_dye, dye)
                sun = wp.max(wp.dot(scene.wall_normal, scene.sun), 0.0) * shadow(scene, sun_map, p, 0.01)
                corner = wp.clamp(0.55 + 0.5 * (p[2] - scene.floor_height), 0.55, 1.0)
                shade = scene.sky * (0.75 * corner) + scene.sun_colour * sun
                return wp.cw_mul(base, shade)
    if reach > 0.0 and reach < 60.0:
        p = scene.eye + reach * ray
        sun = shadow(scene, sun_map, p, 0.01)
        open = 0.35 + 0.65 * openness(scene, above_map, p, 0.12)
        if scene.floor == 1:
            full = wp.max(scene.sun[2], 0.0) * scene.sun_colour + scene.sky
            now = wp.max(scene.sun[2], 0.0) * sun * scene.sun_colour + open * scene.sky
            return wp.cw_mul(colour, wp.cw_div(now, full))
        dye = pattern(scene.floor_pattern, p[0], p[1], scene.floor_scale, scene.seed + 3)
        dye *= wp.clamp(1.5 - 0.1 * reach, 0.0, 1.0)
        base = mixed(scene.floor_colour, scene.floor_dye, dye)
        shade = wp.max(scene.sun[2], 0.0) * sun * scene.sun_colour + open * scene.sky
        colour = mixed(wp.cw_mul(base, shade), behind, wp.clamp((reach - 8.0) / 12.0, 0.0, 1.0))
    return colour


@wp.kernel
@no_type_check
def shade(
    keys: wp.array(dtype=wp.int64, ndim=2),
    sun_map: wp.array(dtype=wp.int64, ndim=2),
    above_map: wp.array(dtype=wp.int64, ndim=2),
    points: wp.array(dtype=wp.vec3),
    vertices: wp.array(dtype=wp.vec3),
    normals: wp.array(dtype=wp.vec3),
    average: wp.array(dtype=wp.vec3),
    fields: wp.array(dtype=wp.vec4),
    paint: wp.array(dtype=wp.vec4),
    faces: wp.array(dtype=wp.int32, ndim=2),
    parts: wp.array(dtype=wp.uint8),
    scene: Scene,
    look: Look,
    background: wp.array(dtype=wp.vec3, ndim=2),
    colours: wp.array(dtype=wp.vec3, ndim=2),
    segments: wp.array(dtype=wp.uint8, ndim=2),
    depths: wp.array(dtype=wp.float32, ndim=2),
):
    """The linear colour, the part and the depth (0 where nothing is) of every pixel."""
    y, x = wp.tid()
    turned = wp.transpose(scene.rotation)
    centre = wp.vec3((float(x) - scene.centre[0]) / scene.focal, (float(y) - scene.centre[1]) / scene.focal, 1.0)
    total = wp.vec3(0.0, 0.0, 0.0)
    missed = wp.float32(0.0)
    seen = wp.int32(0)
    nearest = wp.float32(0.0)
    for k in range(SAMPLES * SAMPLES):
        i = x * SAMPLES + k % SAMPLES
        j = y * SAMPLES + k / SAMPLES
        key = keys[j, i]
        if key <= wp.int64(0):
            missed += 1.0
            continue
        f = int(key % FACE_BITS)
        ia, ib, ic = faces[f, 0], faces[f, 1], faces[f, 2]
        a, b, c = points[ia], points[ib], points[ic]
        px = float(i)
        py = float(j)
        area = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
        u = ((b[0] - px) * (c[1] - py) - (b[1] - py) * (c[0] - px)) / area * a[2]
        v = ((c[0] - px) * (a[1] - py) - (c[1] - py) * (a[0] - px)) / area * b[2]
        w = wp.max(1.0 - u / a[2] - v / b[2], 0.0) * c[2]
        near = u + v + w
        u /= near
        v /= near
        w /= near
        if near > nearest:
            nearest = near
            seen = wp.int32(parts[f])
        p = u * vertices[ia] + v * vertices[ib] + w * vertices[ic]
        n = wp.normalize(u * normals[ia] + v * normals[ib] + w * normals[ic])
        if wp.dot(n, scene.eye - p) < 0.0 and painted_sheet(paint[ia]):
            n = -n
        q = u * average[ia] + v * average[ib] + w * average[ic]
        field = u * fields[ia] + v * fields[ib] + w * fields[ic]
        painted = u * paint[ia] + v * paint[ib] + w * paint[ic]
        material = surface(look, q, field, painted, int(parts[f]))
        albedo = wp.vec3(material[0], material[1], material[2])
        kind = material[3]
        gloss = 0.04
        power = 12.0
        if kind == 1.0:
            state = wp.rand_init(look.seed)
            r = q * 14.0
            fold = wp.vec3(
                wp.noise(state, r + wp.vec3(0.0, 0.0, 7.3)),
                wp.noise(state, r + wp.vec3(3.1, 0.0, 0.0)),
                wp.noise(state, r + wp.vec3(0.0, 5.7, 0.0)),
            )
            n = wp.normalize(n + look.folds * fold)
            gloss = 0.01
        if kind == 0.0:  # blotches, and the relief of skin
            state = wp.rand_init(look.seed + 4)
            spot = wp.noise(state, q * 55.0)
            fine = wp.noise(state, q * 210.0)
            albedo = wp.cw_mul(albedo, wp.vec3(1.0 + 0.07 * spot, 1.0 + 0.14 * spot, 1.0 + 0.12 * spot))
            n = wp.normalize(n + 0.22 * wp.vec3(fine, spot, -fine))
        if kind == 2.0:
            state = wp.rand_init(look.seed + 9)
            strand = wp.noise(state, wp.vec3(q[0] * 160.0, q[1] * 160.0, q[2] * 25.0))
            albedo *= 1.0 + 0.5 * strand
            n = wp.normalize(n + 0.35 * wp.vec3(strand, strand, 0.0))
            gloss = 0.06
        if kind == 3.0:
            gloss = 0.5
            power = 60.0
        lambert = wp.dot(n, scene.sun)
        visible = 0.0
        if lambert > -0.15:
            visible = shadow(scene, sun_map, p + 0.012 * n, 0.008)
        open = openness(scene, above_map, p + 0.01 * n, 0.09)
        up = 0.5 + 0.5 * n[2]
        ambient = mixed(scene.ground, scene.sky, up) * (0.45 + 0.55 * open)
        direct = wp.vec3(wp.max(lambert, 0.0), wp.max(lambert, 0.0), wp.max(lambert, 0.0))
        if kind == 0.0:  # light that enters skin leaves it red, a little beyond the terminator
            direct = wp.vec3(wp.max((lambert + 0.15) / 1.15, 0.0), wp.max((lambert + 0.05) / 1.05, 0.0), direct[2])
        view = wp.normalize(scene.eye - p)
        shine = gloss * wp.pow(wp.max(wp.dot(n, wp.normalize(view + scene.sun)), 0.0), power) * visible
        total += wp.cw_mul(albedo, ambient + visible * wp.cw_mul(direct, scene.sun_colour)) + shine * scene.sun_colour
    if missed > 0.0:
        ray = turned * centre
        total += missed * surroundings(scene, ray, background[y, x], sun_map, above_map)
    colours[y, x] = total / float(SAMPLES * SAMPLES)
    if missed > 2.5:
        seen = wp.int32(0)
    segments[y, x] = wp.uint8(seen)
    depth = 0.0
    if nearest > 0.0:
        depth = 1.0 / nearest
    depths[y, x] = depth
