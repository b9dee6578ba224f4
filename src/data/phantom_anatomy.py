"""The synthetic patients' bodies: shapes as signed distances, painted in HU onto a stack of slices.

Lengths are in mm, in the coordinates of a patient of standard size; the organ lies at negative x.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Volume = npt.NDArray[np.float64]
Triple = tuple[float, float, float]  # z, y, x

SIZE = 128
SPACING_MM = 2.5
THICKNESS_MM = 5.0

AIR, FAT, SKIN, MUSCLE, ORGAN_HU = -1000.0, -100.0, 20.0, 58.0, 105.0


@dataclass(frozen=True)
class Anatomy:
    """Signed distances to the surfaces that matter afterwards, (D, H, W) mm, negative inside.

    Attributes:
        body: The skin.
        organ: The organ, with its vessels and cysts.
        lesion: The nearest lesion; it may reach beyond the organ, where it does not count.
    """

    body: Volume
    organ: Volume
    lesion: Volume


def draw_anatomy(canvas: Canvas) -> Anatomy:
    """Paint a whole patient, without the table.

    Args:
        canvas: An empty one; its random stream decides what the patient is like.

    Returns:
        Where body, organ and lesions are.
    """
    body, cavity = _body(canvas)
    obstacles = _neighbours(canvas, cavity)
    organ = _organ(canvas, cavity, obstacles)
    lesion = _findings(canvas, organ)
    _bones(canvas, body, cavity)
    return Anatomy(body, organ, lesion)


class Points:
    """Where each voxel lies, (D, H, W) mm: z upwards, y towards the back, x to the patient's left.

    A shape is the signed distance of these points to its surface in mm, negative inside.
    """

    def __init__(self, z: Volume, y: Volume, x: Volume) -> None:
        self.z, self.y, self.x = z, y, x

    def waves(self, rng: np.random.Generator, wavelength_mm: float, amplitude: float) -> Volume:
        """A smooth random field: six plane waves of random direction and phase."""
        field = np.zeros_like(self.z)
        for direction in rng.normal(size=(6, 3)):
            z, y, x = direction * (2 * np.pi / wavelength_mm / np.sqrt(direction @ direction))
            field += np.cos(z * self.z + y * self.y + x * self.x + rng.uniform(0, 2 * np.pi))
        return np.asarray(field * (amplitude / np.sqrt(3)))  # six cosines have a variance of 3

    def ellipsoid(self, centre: Triple, radii: Triple, turn: float = 0.0) -> Volume:
        """Distance to an ellipsoid turned by `turn` radians in the plane, to first order.

        Source: Taubin 1991, doi:10.1109/34.103273: f / |grad f| for f = |p / r| - 1.
        """
        dz, dy, dx = self.z - centre[0], self.y - centre[1], self.x - centre[2]
        dy, dx = np.cos(turn) * dy - np.sin(turn) * dx, np.sin(turn) * dy + np.cos(turn) * dx
        # The small constants keep the quotient finite at the centre.
        q = np.sqrt((dz / radii[0]) ** 2 + (dy / radii[1]) ** 2 + (dx / radii[2]) ** 2 + 1e-6)
        slope = (dz / radii[0] ** 2) ** 2 + (dy / radii[1] ** 2) ** 2 + (dx / radii[2] ** 2) ** 2
        return np.asarray((q - 1) * q / np.sqrt(slope + 1e-6 / min(radii) ** 2))

    def column(self, y: float, x: float, radius_y: float, radius_x: float) -> Volume:
        """Distance to an elliptic cylinder along z."""
        return self.ellipsoid((0.0, y, x), (1e4, radius_y, radius_x))

    def tube(self, start: Volume, end: Volume, radii: tuple[float, float]) -> Volume:
        """Distance to a tube from `start` to `end`, (z, y, x) mm, that narrows on the way."""
        along = end - start
        dz, dy, dx = self.z - start[0], self.y - start[1], self.x - start[2]
        part = np.clip((dz * along[0] + dy * along[1] + dx * along[2]) / (along @ along), 0, 1)
        dz, dy, dx = dz - part * along[0], dy - part * along[1], dx - part * along[2]
        gap = np.sqrt(dz**2 + dy**2 + dx**2)
        return np.asarray(gap - (radii[0] + part * (radii[1] - radii[0])))


class Canvas:
    """A patient while being drawn.

    Attributes:
        rng: The patient's own random stream.
        hu: The picture so far, (D, H, W) HU.
        room: Voxels in the scanner's axes.
        rigid: The same voxels in a patient of standard size who lies turned and off the centre.
        soft: `rigid` after a smooth deformation, so that no two anatomies are alike.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        depth = int(rng.integers(6, 11))
        z = (np.arange(depth) - (depth - 1) / 2) * THICKNESS_MM
        line = (np.arange(SIZE) - (SIZE - 1) / 2) * SPACING_MM
        self.room = room = Points(*np.meshgrid(z, line, line, indexing="ij"))

        angle, scale = np.deg2rad(rng.uniform(-7, 7)), rng.uniform(0.95, 1.12)
        dy, dx = room.y - rng.uniform(-14, 0), room.x - rng.uniform(-6, 6)
        y = (np.cos(angle) * dy - np.sin(angle) * dx) / scale
        x = (np.sin(angle) * dy + np.cos(angle) * dx) / scale
        self.rigid = rigid = Points(room.z / scale, y, x)
        self.soft = Points(rigid.z, y + rigid.waves(rng, 180, 4.5), x + rigid.waves(rng, 180, 4.5))
        self.hu = np.full_like(room.z, AIR)

    def paint(
        self,
        shape: Volume,
        hu: float | Volume,
        *,
        inside: Volume | None = None,
        edge_mm: float = SPACING_MM,
    ) -> None:
        """Blend `hu` in over an edge of `edge_mm` (partial volume), clipped to `inside`."""
        weight = np.clip(0.5 - shape / edge_mm, 0, 1)
        if inside is not None:
            weight *= np.clip(0.5 - inside / SPACING_MM, 0, 1)
        self.hu += weight * (hu - self.hu)


def _body(canvas: Canvas) -> tuple[Volume, Volume]:
    """Skin, fat rim and muscle wall; returns the distances to the body and to its cavity."""
    soft, rng = canvas.soft, canvas.rng
    fat_mm, wall_mm = rng.uniform(6, 24), rng.uniform(9, 13)
    half_y, half_x = rng.uniform(66, 74), rng.uniform(94, 102)  # of the cavity
    body = soft.column(0, 0, half_y + wall_mm + fat_mm, half_x + wall_mm + fat_mm)
    wall = body + fat_mm + soft.waves(rng, 150, 1.5)
    cavity = wall + wall_mm
    canvas.paint(body, SKIN)
    canvas.paint(body + 2.5, FAT)
    canvas.paint(wall, MUSCLE + soft.waves(rng, 25, 6))
    canvas.paint(cavity, FAT)
    for side in (-1, 1):
        canvas.paint(soft.column(70, side * 33, 19, 24), MUSCLE, inside=body + 0.7 * fat_mm)
        canvas.paint(soft.column(48, side * 29, 13, 9), MUSCLE)
    return body, cavity


def _neighbours(canvas: Canvas, cavity: Volume) -> Volume:
    """Bowel, stomach, spleen, kidneys, great vessels; returns what the organ must not enter."""
    soft, uniform = canvas.soft, canvas.rng.uniform
    for _ in range(int(canvas.rng.integers(7, 12))):
        centre = (uniform(-30, 30), uniform(-50, 25), uniform(-25, 95))
        radii = (uniform(12, 30), uniform(8, 15), uniform(9, 20))
        loop = soft.ellipsoid(centre, radii, uniform(0, np.pi))
        canvas.paint(loop, 70, inside=cavity)
        canvas.paint(loop + 3, uniform(15, 75), inside=cavity)

    centre = (uniform(-20, 25), uniform(-38, -25), uniform(48, 66))
    radii = (uniform(35, 60), uniform(20, 30), uniform(26, 40))
    stomach = soft.ellipsoid(centre, radii, uniform(-0.6, 0.6))
    canvas.paint(stomach, 75, inside=cavity + 2)
    canvas.paint(stomach + 4, uniform(15, 60), inside=cavity + 6)
    level = canvas.rigid.y + uniform(38, 60)  # gas rises above a level plane
    canvas.paint(np.maximum(stomach + 5, level), -900, inside=cavity + 6)

    centre = (uniform(-20, 25), uniform(20, 34), uniform(86, 98))
    radii = (uniform(35, 55), uniform(30, 42), uniform(17, 24))
    spleen = soft.ellipsoid(centre, radii, uniform(-0.3, 0.3))
    canvas.paint(spleen, uniform(108, 125), inside=cavity + 2)

    obstacles = soft.column(48, 0, 22, 27)  # the spine
    middle = uniform(-55, 10)
    for side in (-1, 1):
        z, y, x = middle + uniform(-8, 8), uniform(24, 34), side * uniform(50, 60)
        kidney = soft.ellipsoid((z, y, x), (50, uniform(19, 24), uniform(18, 23)))
        canvas.paint(kidney - 4, FAT, inside=cavity)
        canvas.paint(kidney, uniform(150, 180), inside=cavity + 3)
        sinus = soft.ellipsoid((z, y - 3, x - side * 9), (25, 9, 11))
        canvas.paint(sinus, uniform(-40, 20), edge_mm=5, inside=cavity + 3)
        behind = soft.ellipsoid((z, y + 25, 0.75 * x), (50, 26, 28))  # the organ ends at the kidney
        obstacles = np.minimum(obstacles, np.minimum(kidney - 4, behind))
    flow, calibre = uniform(140, 175), uniform(8.5, 11)
    aorta = soft.column(uniform(24, 30), uniform(8, 16), calibre, calibre)
    cava = soft.column(uniform(20, 27), uniform(-24, -16), 9, uniform(9, 13))
    canvas.paint(aorta, flow)
    canvas.paint(cava, flow - 15)
    return np.minimum(obstacles, np.minimum(aorta - 4, cava))


def _organ(canvas: Canvas, cavity: Volume, obstacles: Volume) -> Volume:
    """Two lobes with a cleft and a smoothly irregular surface, and vessels; returns distance."""
    soft, rng, uniform = canvas.soft, canvas.rng, canvas.rng.uniform
    level = uniform(-25, 25)
    centre = (level, uniform(-8, 4), uniform(-66, -54))
    radii = (uniform(75, 95), uniform(56, 70), uniform(46, 60))
    right = soft.ellipsoid(centre, radii, uniform(-0.25, 0.25))
    centre = (level + 10, uniform(-44, -34), uniform(-16, 4))
    radii = (uniform(50, 70), uniform(18, 30), uniform(40, 62))
    left = soft.ellipsoid(centre, radii, uniform(-0.3, 0.2))
    cleft = soft.ellipsoid((level, -70, uniform(-32, -20)), (60, uniform(22, 40), 2.5), 0.25)
    lobes = np.maximum(np.minimum(right, left), -cleft) + soft.waves(rng, 60, 2.5)
    organ: Volume = np.maximum.reduce([lobes, cavity + 2.5, -obstacles])
    canvas.paint(organ, ORGAN_HU + uniform(-4, 4) + soft.waves(rng, 40, 3))

    # The vessels fan out of the organ's gate and narrow with every bend.
    gate = np.array([uniform(-15, 15), uniform(-5, 8), uniform(-40, -30)])
    tree = np.full_like(organ, np.inf)
    for angle in uniform(-0.6, 0.6, size=6) + np.arange(6) * (np.pi / 3):
        start, radius = gate, uniform(4.0, 5.5)
        for _ in range(3):
            angle += uniform(-0.6, 0.6)
            step = np.array([uniform(-0.6, 0.6), np.sin(angle), np.cos(angle)])
            end = start + step * uniform(16, 26)
            tree = np.minimum(tree, soft.tube(start, end, (radius, 0.72 * radius)))
            start, radius = end, 0.72 * radius
    canvas.paint(tree, ORGAN_HU + uniform(45, 65), inside=organ + 3)
    return organ


def _findings(canvas: Canvas, organ: Volume) -> Volume:
    """Lesions (faint, irregular, soft) and cysts (dark, round, sharp); returns lesion distance."""
    rigid, rng, uniform = canvas.rigid, canvas.rng, canvas.rng.uniform
    spacing = (THICKNESS_MM, SPACING_MM, SPACING_MM)
    depth_mm = ndimage.distance_transform_edt(organ < 0, sampling=spacing)
    lesion = np.full_like(organ, np.inf)
    taken = np.full_like(organ, np.inf)  # distance to the nearest finding so far
    lesions = int(rng.choice([1, 2, 3], p=[0.5, 0.35, 0.15]))
    radii = [*uniform(13.5, 18, size=lesions), *uniform(4, 9, size=rng.integers(1, 5))]
    for number, radius in enumerate(radii):
        # The first lesion is centred inside the stack: every patient has one worth measuring.
        margin = 7.0 if number == 0 else 0.0
        inner = np.abs(canvas.room.z) <= canvas.room.z.max() - margin
        places = np.flatnonzero(inner & (depth_mm > 0.8 * radius) & (taken > radius + 4))
        if places.size == 0 and number > 0:
            continue
        place = int(rng.choice(places)) if places.size else int(depth_mm.argmax())
        z = rigid.z.flat[place] + uniform(-2.5, 2.5)
        centre = (float(z), float(rigid.y.flat[place]), float(rigid.x.flat[place]))
        if number < lesions:
            # Flat along z, so that about a third of the slices show none.
            axes = (uniform(0.55, 0.8), uniform(0.85, 1.15), uniform(0.85, 1.15))
            z, y, x = (radius * axis for axis in axes)
            shape = rigid.ellipsoid(centre, (z, y, x), uniform(0, np.pi))
            shape += rigid.waves(rng, 2.5 * radius, 0.08 * radius)
            hu = ORGAN_HU - uniform(45, 55) + rigid.waves(rng, 15, 3)
            canvas.paint(shape, hu, edge_mm=4, inside=organ)
            lesion = np.minimum(lesion, shape)
        else:
            shape = rigid.ellipsoid(centre, (radius, radius, radius))
            canvas.paint(shape, uniform(-5, 18), edge_mm=1.5, inside=organ)
        taken = np.minimum(taken, shape)
    return lesion


def _bones(canvas: Canvas, body: Volume, cavity: Volume) -> None:
    """Spine with canal and processes, and ribs that slant through the stack."""
    rigid, uniform = canvas.rigid, canvas.rng.uniform
    cortex, marrow = uniform(380, 520), uniform(150, 220)
    arch, spinous = rigid.column(71, 0, 12, 15), rigid.column(85, 0, 13, 3.5)
    processes = np.minimum.reduce([arch, spinous, rigid.column(67, 0, 4, 30)])
    canvas.paint(processes, cortex - 100, inside=body + 8)
    vertebra = rigid.column(48, 0, uniform(15, 19), uniform(19, 24))
    canvas.paint(vertebra, cortex)
    canvas.paint(vertebra + 3, marrow)
    canvas.paint(rigid.column(71, 0, 7, 8.5), 30, inside=body + 8)  # the canal

    for angle in (*np.linspace(-0.7, 0.9, 5), *np.linspace(np.pi - 0.9, np.pi + 0.7, 5)):
        # A rib runs downwards and forwards, so its cut wanders along the wall with z.
        cut = angle + uniform(-0.1, 0.1) + np.sign(np.cos(angle)) * 0.008 * rigid.z
        outwards = rigid.y * np.sin(cut) + rigid.x * np.cos(cut)
        aside = rigid.y * np.cos(cut) - rigid.x * np.sin(cut)
        rib = 4 * (np.sqrt(((cavity - 5) / 4) ** 2 + (aside / 11) ** 2) - 1)
        rib = np.maximum(rib, -outwards)
        canvas.paint(rib, cortex)
        canvas.paint(rib + 2.5, marrow)
