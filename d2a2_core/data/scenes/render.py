"""Ray-cast rendering of a textured triangle scene: an RGB picture and the exact depth behind every pixel.

Convention: the world is metres with z up. The camera is the optical frame of REP 103 (x right, y down, z forward); `pose` is
camera-to-world. Pixel centres are at integers. Depth is along the camera's z, not along the ray, and NaN where nothing is hit.
Colours of materials and textures are sRGB in [0, 1] or uint8; shading runs in linear light.

The ray casting itself is Intel Embree through the optional package `embreex` (setup.py's extra `render`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

_RAYS_PER_BLOCK = 1 << 18  # keeps the shading arrays of one block within a few hundred megabytes
_MIN_MIP_TEXELS = 4
_PLASTIC = np.array(
    [0.7548776662466927, 0.5698402909980532]
)  # steps of the R2 sequence (Roberts 2018): inverse plastic numbers


@dataclass
class Material:
    """Surface of some faces. `color` sRGB [0, 1]; `texture` (H, W, 3) uint8 sRGB replaces it; `emission` 1 glows white."""

    color: tuple[float, float, float] = (0.7, 0.7, 0.7)
    texture: np.ndarray | None = None
    specular: float = 0.0
    emission: float = 0.0


@dataclass
class Mesh:
    """Triangles: vertices (V, 3) metres, faces (F, 3), per-corner uv (F, 3, 2) and normals (F, 3, 3), material index (F,)."""

    vertices: np.ndarray
    faces: np.ndarray
    uv: np.ndarray
    normals: np.ndarray
    material: np.ndarray
    materials: list[Material]

    def bounds(self) -> np.ndarray:
        """(2, 3) lowest and highest corner of the axis-aligned box, metres."""
        return np.stack([self.vertices.min(0), self.vertices.max(0)])

    def placed(self, x: float, y: float, z: float, yaw: float = 0.0) -> Mesh:
        """A copy turned by `yaw` (radians, about +z) and then moved so that the local origin lies at (x, y, z)."""
        c, s = np.cos(yaw), np.sin(yaw)
        turn = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
        vertices = self.vertices @ turn.T + np.array([x, y, z])
        return Mesh(vertices, self.faces, self.uv, self.normals @ turn.T, self.material, self.materials)


@dataclass
class Light:
    """A small glowing ball: position (3,) metres, intensity (3,) linear RGB, radius metres (softens its shadows)."""

    position: tuple[float, float, float]
    intensity: tuple[float, float, float]
    radius: float = 0.1


@dataclass
class Scene:
    """Meshes, lights, ambient light (linear RGB). `size` is the room's (x, y, z) extent, its floor centred on the origin."""

    meshes: list[Mesh]
    lights: list[Light] = field(default_factory=list)
    ambient: tuple[float, float, float] = (0.3, 0.3, 0.3)
    size: tuple[float, float, float] = (5.0, 4.0, 2.6)
    credits: list[str] = field(default_factory=list)
    _tracer: Any = field(default=None, repr=False, compare=False)

    def tracer(self) -> Tracer:
        """The acceleration structure, built on first use. Meshes added later are not seen: make a new Scene for them."""
        if self._tracer is None:
            self._tracer = Tracer(self.meshes)
        return self._tracer


class Tracer:
    """Embree's tree over all triangles, with the per-face attributes that shading reads."""

    def __init__(self, meshes: list[Mesh]) -> None:
        try:
            from embreex import rtcore_scene
            from embreex.mesh_construction import TriangleMesh
        except ImportError as error:
            raise ImportError("rendering needs the package embreex: pip install 'embreex>=2.17.7,<5'") from error
        if not meshes:
            raise ValueError("expected a scene with at least one mesh, got none")
        starts = np.cumsum([0] + [len(m.vertices) for m in meshes[:-1]])
        vertices = np.concatenate([m.vertices for m in meshes]).astype(np.float32)
        faces = np.concatenate([m.faces + s for m, s in zip(meshes, starts, strict=True)]).astype(np.int32)
        self._scene = rtcore_scene.EmbreeScene()
        self._mesh = TriangleMesh(self._scene, vertices, faces)
        self.uv = np.concatenate([m.uv for m in meshes]).astype(np.float32)
        self.normals = np.concatenate([m.normals for m in meshes]).astype(np.float32)
        material_starts = np.cumsum([0] + [len(m.materials) for m in meshes[:-1]])
        self.material = np.concatenate([m.material + s for m, s in zip(meshes, material_starts, strict=True)])
        self.materials = [material for m in meshes for material in m.materials]
        self.mips: dict[int, list[np.ndarray]] = {}
        corners = vertices[faces]
        area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
        e1, e2 = self.uv[:, 1] - self.uv[:, 0], self.uv[:, 2] - self.uv[:, 0]
        uv_area = np.abs(e1[:, 0] * e2[:, 1] - e1[:, 1] * e2[:, 0])
        self.uv_per_metre = np.sqrt(uv_area / np.maximum(area, 1e-12))
        self.color = np.array([_linear(np.asarray(m.color)) for m in self.materials], np.float32)
        self.specular = np.array([m.specular for m in self.materials], np.float32)
        self.emission = np.array([m.emission for m in self.materials], np.float32)

    def cast(
        self, origins: np.ndarray, directions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """First hits of N rays, both (N, 3): face index (-1 = none), distance in lengths of `direction` (NaN = none), u, v."""
        hit = self._scene.run(_f32(origins), _f32(directions), query="INTERSECT", output=True)
        face = hit["primID"]
        return face, np.where(face >= 0, hit["tfar"], np.nan).astype(np.float32), hit["u"], hit["v"]

    def blocked(self, origins: np.ndarray, directions: np.ndarray, reach: float) -> np.ndarray:
        """(N,) bool: something lies on the ray before `reach` lengths of its direction."""
        limits = np.full(len(origins), reach, np.float32)
        return np.asarray(self._scene.run(_f32(origins), _f32(directions), limits, query="OCCLUDED")) >= 0

    def albedo(self, face: np.ndarray, u: np.ndarray, v: np.ndarray, footprint: np.ndarray) -> np.ndarray:
        """(N, 3) linear surface colour; `footprint` is the width in metres that one sample covers, it selects the mip level."""
        material = self.material[face]
        color = self.color[material]
        for index in np.unique(material):
            if self.materials[index].texture is None:
                continue
            if index not in self.mips:
                self.mips[index] = _mip_levels(self.materials[index].texture)
            rows = np.nonzero(material == index)[0]
            corner = self.uv[face[rows]]
            uv = (
                corner[:, 0]
                + u[rows, None] * (corner[:, 1] - corner[:, 0])
                + v[rows, None] * (corner[:, 2] - corner[:, 0])
            )
            levels = self.mips[index]
            texels = footprint[rows] * self.uv_per_metre[face[rows]] * np.sqrt(levels[0].shape[0] * levels[0].shape[1])
            level = np.clip(np.round(np.log2(np.maximum(texels, 1e-6))), 0, len(levels) - 1).astype(int)
            for k in np.unique(level):
                color[rows[level == k]] = _bilinear_wrap(levels[k], uv[level == k])
        return color


def render(
    scene: Scene,
    intrinsics: np.ndarray,
    pose: np.ndarray,
    width: int,
    height: int,
    supersample: int = 2,
    *,
    noise: float = 0.0,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Picture and depth of the scene from one pinhole camera.

    Args:
        intrinsics: (3, 3) K in pixels, pixel centres at integers.
        pose: (4, 4) camera-to-world, camera z forward.
        supersample: colour samples per pixel along each axis (n means n * n rays). Depth always uses the one centre ray.
        noise: standard deviation of the sensor noise added to the picture, in 8-bit steps; 0 = none.
        seed: of the shadow sampling and the noise.

    Returns:
        rgb (height, width, 3) uint8 sRGB and depth (height, width) float32, metres along z, NaN where nothing is hit.

    Raises:
        ImportError: without `embreex`. ValueError: for shapes or counts out of range.
    """
    intrinsics, pose = np.asarray(intrinsics, float), np.asarray(pose, float)
    if intrinsics.shape != (3, 3) or pose.shape != (4, 4):
        raise ValueError(f"expected intrinsics (3, 3) and pose (4, 4), got {intrinsics.shape} and {pose.shape}")
    if supersample < 1 or width < 1 or height < 1:
        raise ValueError(f"expected positive width, height, supersample; got {width}, {height}, {supersample}")
    rng = np.random.default_rng(seed)
    tracer = scene.tracer()
    depth = render_depth(scene, intrinsics, pose, width, height)
    offsets = (np.arange(supersample) + 0.5) / supersample - 0.5
    rows = max(1, _RAYS_PER_BLOCK // (width * supersample**2))
    picture = np.empty((height, width, 3), np.float32)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        v, dv, u, du = np.meshgrid(np.arange(top, bottom), offsets, np.arange(width), offsets, indexing="ij")
        directions = _pixel_rays(intrinsics, pose, (u + du).ravel(), (v + dv).ravel())
        # One random shift per pixel and a low-discrepancy sequence over its samples: soft shadows with little grain.
        sample = (np.searchsorted(offsets, dv) * supersample + np.searchsorted(offsets, du)).ravel()
        shift = np.broadcast_to(rng.random((bottom - top, 1, width, 1, 2)), (*u.shape, 2)).reshape(-1, 2)
        spread = ((shift + sample[:, None] * _PLASTIC) % 1.0).astype(np.float32)
        color = _shade(scene, tracer, pose[:3, 3], directions, 1.0 / (intrinsics[0, 0] * supersample), spread)
        color = _tone(color).reshape(bottom - top, supersample, width, supersample, 3)
        picture[top:bottom] = color.mean((1, 3))
    srgb = 255.0 * _srgb(picture)
    if noise > 0:
        srgb = srgb + rng.normal(0.0, noise, srgb.shape)
    return np.clip(np.round(srgb), 0, 255).astype(np.uint8), depth


def render_depth(scene: Scene, intrinsics: np.ndarray, pose: np.ndarray, width: int, height: int) -> np.ndarray:
    """(height, width) float32 depth in metres along z through the pixel centres, NaN where nothing is hit. See `render`."""
    v, u = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    directions = _pixel_rays(np.asarray(intrinsics, float), np.asarray(pose, float), u.ravel(), v.ravel())
    origins = np.broadcast_to(np.asarray(pose, float)[:3, 3], directions.shape)
    return scene.tracer().cast(origins, directions)[1].reshape(height, width)


def look_at(eye: np.ndarray, target: np.ndarray, roll: float = 0.0) -> np.ndarray:
    """(4, 4) camera-to-world of a camera at `eye` that looks at `target`, world z up; `roll` in radians about its z axis."""
    eye, target = np.asarray(eye, float), np.asarray(target, float)
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    c, s = np.cos(roll), np.sin(roll)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([c * right + s * down, c * down - s * right, forward], axis=1)
    pose[:3, 3] = eye
    return pose


def _pixel_rays(intrinsics: np.ndarray, pose: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    # The camera-frame z component is 1, so a hit's ray parameter is the depth along z itself.
    camera = np.linalg.solve(intrinsics, np.stack([u, v, np.ones_like(u)]).astype(float))
    return (camera / camera[2]).T @ pose[:3, :3].T


def _shade(
    scene: Scene, tracer: Tracer, eye: np.ndarray, directions: np.ndarray, pixel: float, spread: np.ndarray
) -> np.ndarray:
    """(N, 3) linear radiance along N rays from `eye`; `pixel` is a sample's width at one metre, `spread` (N, 2) in [0, 1)."""
    color = np.zeros((len(directions), 3), np.float32)
    face, distance, u, v = tracer.cast(np.broadcast_to(eye, directions.shape), directions)
    hit = np.nonzero(face >= 0)[0]
    if not len(hit):
        return color
    face, distance, u, v, ray = face[hit], distance[hit], u[hit], v[hit], directions[hit].astype(np.float32)
    spread = spread[hit]
    corner = tracer.normals[face]
    normal = _unit(corner[:, 0] * (1 - u - v)[:, None] + corner[:, 1] * u[:, None] + corner[:, 2] * v[:, None])
    normal = np.where((normal * ray).sum(1, keepdims=True) > 0, -normal, normal)  # models have inside-out faces
    point = eye + ray * distance[:, None] + normal * 2e-3
    view = -_unit(ray)
    cosine = np.maximum((normal * view).sum(1), 0.2)
    albedo = tracer.albedo(face, u, v, pixel * distance / cosine)
    shine = tracer.specular[tracer.material[face]]

    # Ambient light reaches a point from the directions that are free for a metre, and the ceiling is brighter than the floor.
    outward = _unit(normal + 0.98 * _sphere(spread))
    open_sky = 1.0 - 0.85 * tracer.blocked(point, outward, 0.9)
    sky = (0.75 + 0.25 * normal[:, 2:]) * np.asarray(scene.ambient, np.float32)
    light_sum, gloss = sky * open_sky[:, None], np.zeros_like(albedo)
    for number, light in enumerate(scene.lights):
        ball = light.radius * _sphere((spread + 0.37 * (number + 1)) % 1.0)
        to_light = np.asarray(light.position, np.float32) + ball - point
        squared = (to_light**2).sum(1)
        toward = to_light / np.sqrt(squared)[:, None]
        facing = np.maximum((normal * toward).sum(1), 0.0)
        lit = facing > 0
        lit[lit] = ~tracer.blocked(point[lit], to_light[lit], 1.0)
        arriving = (lit / (squared + 0.3))[:, None] * np.asarray(light.intensity, np.float32)
        light_sum += arriving * facing[:, None]
        half = np.maximum((normal * _unit(toward + view)).sum(1), 0.0)
        gloss += arriving * (shine * half**40)[:, None]
    emission = tracer.emission[tracer.material[face]][:, None]
    color[hit] = albedo * (light_sum + emission) + gloss
    return color


def _sphere(spread: np.ndarray) -> np.ndarray:
    """(N, 3) points on the unit sphere, uniform for uniform `spread` (N, 2) in [0, 1)."""
    z, angle = 1 - 2 * spread[:, 0], 2 * np.pi * spread[:, 1]
    radius = np.sqrt(np.maximum(1 - z * z, 0))
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), z], 1)


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.sqrt((x * x).sum(-1, keepdims=True)), 1e-9)


def _f32(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x, dtype=np.float32)


def _linear(srgb: np.ndarray) -> np.ndarray:
    return np.where(srgb <= 0.04045, srgb / 12.92, ((np.maximum(srgb, 0) + 0.055) / 1.055) ** 2.4)


def _srgb(linear: np.ndarray) -> np.ndarray:
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * np.maximum(linear, 1e-9) ** (1 / 2.4) - 0.055)


def _tone(linear: np.ndarray) -> np.ndarray:
    # Straight up to 0.6, then a shoulder towards 1, so that bright windows keep a soft border and mid tones keep contrast.
    return np.where(linear < 0.6, linear, 1.0 - 0.4 * np.exp(-(np.maximum(linear, 0.6) - 0.6) / 0.4)).astype(np.float32)


def _mip_levels(texture: np.ndarray) -> list[np.ndarray]:
    levels = [_linear(texture[..., :3].astype(np.float32) / 255.0).astype(np.float32)]
    while min(levels[-1].shape[:2]) >= 2 * _MIN_MIP_TEXELS:
        t = levels[-1]
        t = t[: t.shape[0] // 2 * 2, : t.shape[1] // 2 * 2]
        levels.append((t[::2, ::2] + t[1::2, ::2] + t[::2, 1::2] + t[1::2, 1::2]) / 4)
    return levels


def _bilinear_wrap(texture: np.ndarray, uv: np.ndarray) -> np.ndarray:
    h, w = texture.shape[:2]
    x = (uv[:, 0] % 1.0) * w - 0.5
    y = (1.0 - uv[:, 1] % 1.0) * h - 0.5  # v grows upwards in a model, downwards in an image
    x0, y0 = np.floor(x).astype(int), np.floor(y).astype(int)
    fx, fy = (x - x0)[:, None], (y - y0)[:, None]
    x0, x1, y0, y1 = x0 % w, (x0 + 1) % w, y0 % h, (y0 + 1) % h
    top = texture[y0, x0] * (1 - fx) + texture[y0, x1] * fx
    return top * (1 - fy) + (texture[y1, x0] * (1 - fx) + texture[y1, x1] * fx) * fy
