"""Finding and loading the furniture models of Debian's package `sweethome3d-furniture` that are CC0 or, if asked for, CC-BY.

The package holds archives (`*.sh3f`, zip files): a catalog in Java's properties format, Wavefront OBJ models, and licence texts.
A model is taken when its archive's LICENSE.TXT and every licence document in the model's own folder state the same wanted
licence; so the choice follows what is stated and not a list kept here. CC-BY asks for its authors to be named: the models'
creators go into the manifest of generated scenes and from there into the cards of weights trained on them.

Convention of a loaded mesh: metres, z up, front towards -y, standing on z = 0, centred on x = y = 0.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

import numpy as np

from d2a2_core.data.scenes.render import Material, Mesh
from d2a2_core.files import files_below
from d2a2_core.images import decode_image

_CATALOG = "PluginFurnitureCatalog.properties"
LICENCES = ("CC0", "CC-BY")
_CC0 = re.compile(r"CC-?0\b|Creative Commons Zero", re.IGNORECASE)
_ATTRIBUTION = re.compile(r"CC-BY|Creative Commons Attribution|Attribution[ -](\d|Share|Non|No)", re.IGNORECASE)
_BY = re.compile(r"(?:CC-BY|Creative Commons Attribution)[ -](\d\.\d)( United States)?", re.IGNORECASE)
_MORE_TERMS = re.compile(r"Share[ -]?Alike|Non[ -]?Commercial|No[ -]?Deriv|BY-(SA|NC|ND)", re.IGNORECASE)
_LICENCE_FILE = re.compile(r"licen[sc]e|\.(txt|html?|rtf)$", re.IGNORECASE)
_SEE_THROUGH = 0.6  # opacity below which a face (glass) is left out: neither the picture nor the depth shows it
_TEXTURE_PIXELS = 512


@dataclass(frozen=True)
class FurnitureModel:
    """One catalog entry: where it lies, who made it, its stated licence, its size and usual height above the floor (metres)."""

    name: str
    category: str
    archive: Path
    path: str
    licence: str
    creator: str
    width: float
    depth: float
    height: float
    elevation: float = 0.0
    rotation: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)

    @property
    def key(self) -> str:
        """Folder name of the model inside its archive, unique within it."""
        return PurePosixPath(self.path).parent.name


def find_models(folder: str | Path, licences: Sequence[str] = ("CC0",)) -> list[FurnitureModel]:
    """All models of the wanted licences in the archives under `folder`, in the archives' order.

    Args:
        folder: with the archives, or with folders of them.
        licences: some of ``LICENCES``.

    Raises:
        ValueError: a licence that is none of ``LICENCES``.
        FileNotFoundError: when the folder holds no furniture archive, or no such model in them.
    """
    if not licences or not set(licences) <= set(LICENCES):
        raise ValueError(f"expected licences out of {', '.join(LICENCES)}, got {', '.join(licences) or 'none'}")
    folder = Path(folder)
    archives = [path for path in files_below(folder) if path.suffix == ".sh3f"]
    models = [model for archive in archives for model in _models_of(archive, licences)]
    if not models:
        wanted = " or ".join(licences)
        raise FileNotFoundError(
            f"expected furniture archives (*.sh3f) with {wanted} models under {folder}, found {len(archives)} archives and no "
            f"{wanted} model. Install Debian's package: apt-get install sweethome3d-furniture (they then lie in "
            "/usr/share/sweethome3d/furniture), or apt-get download sweethome3d-furniture and unpack it with dpkg -x"
        )
    return models


def stated_licence(text: str) -> str | None:
    """ "CC0", or CC-BY with its version ("CC-BY-3.0", "CC-BY-3.0-US"), if that is what a licence text states, else None."""
    text = " ".join(text.split())
    by = _BY.search(text)
    if by and not _CC0.search(text) and not _MORE_TERMS.search(text):
        return f"CC-BY-{by[1]}" + ("-US" if by[2] else "")
    return "CC0" if _CC0.search(text) and not _ATTRIBUTION.search(text) else None


def _models_of(archive: Path, licences: Sequence[str]) -> list[FurnitureModel]:
    with zipfile.ZipFile(archive) as bundle:
        names = bundle.namelist()
        texts = [n for n in names if PurePosixPath(n).name.upper() == "LICENSE.TXT" and "/" not in n]
        licence = stated_licence(bundle.read(texts[0]).decode("latin1")) if texts else None
        kind = next((wanted for wanted in licences if licence and licence.startswith(wanted)), None)
        if _CATALOG not in names or kind is None:
            return []
        entries: dict[int, dict[str, str]] = {}
        for line in bundle.read(_CATALOG).decode("latin1").splitlines():
            if match := re.match(r"(\w+)#(\d+)=(.*)", line):
                entries.setdefault(int(match[2]), {})[match[1]] = match[3].strip()
        models = []
        for _, entry in sorted(entries.items()):
            path = entry.get("model", "").lstrip("/")
            if path not in names or not path.endswith(".obj"):
                continue
            own = [
                n for n in names if PurePosixPath(n).parent == PurePosixPath(path).parent and _LICENCE_FILE.search(n)
            ]
            stated = [stated_licence(bundle.read(n).decode("latin1")) for n in own]
            if all(text and text.startswith(kind) for text in stated):
                models.append(_model(archive, path, entry, licence))
        return models


def _model(archive: Path, path: str, entry: dict[str, str], licence: str) -> FurnitureModel:
    rotation = tuple(float(x) for x in entry["modelRotation"].split()) if "modelRotation" in entry else None
    return FurnitureModel(
        name=entry["name"],
        category=entry.get("category", ""),
        archive=archive,
        path=path,
        licence=licence,
        creator=entry.get("creator", "unknown"),
        width=float(entry["width"]) / 100,
        depth=float(entry["depth"]) / 100,
        height=float(entry["height"]) / 100,
        elevation=float(entry.get("elevation", 0)) / 100,
        **({"rotation": rotation} if rotation else {}),
    )


@lru_cache(maxsize=256)
def load_mesh(model: FurnitureModel) -> Mesh:
    """The model as triangles in metres, z up, front towards -y, standing on z = 0 and centred; textures at most 512 pixels.

    Treat the result as read-only: it is cached.

    Raises:
        ValueError: when the OBJ file holds no opaque face.
    """
    with zipfile.ZipFile(model.archive) as bundle:
        text = bundle.read(model.path).decode("latin1")
        folder = PurePosixPath(model.path).parent
        libraries = [line.split(None, 1)[1].strip() for line in text.splitlines() if line.startswith("mtllib ")]
        materials: dict[str, tuple[Material, float]] = {}
        for library in libraries:
            materials.update(_read_materials(bundle, folder, library))
    vertices, faces, uv, normals, names = _read_obj(text)
    order = list(dict.fromkeys(names))
    opaque = np.array([materials.get(n, (None, 1.0))[1] >= _SEE_THROUGH for n in order], bool)
    index = np.array([order.index(n) for n in names])
    keep = opaque[index] if len(index) else np.zeros(0, bool)
    if not keep.any():
        raise ValueError(f"expected opaque faces in {model.path} of {model.archive}, got none")
    turn = np.array(model.rotation).reshape(3, 3)
    vertices, normals = vertices @ turn.T, normals @ turn.T
    low, high = vertices.min(0), vertices.max(0)
    scale = np.array([model.width, model.height, model.depth]) / np.maximum(high - low, 1e-9)
    vertices = (vertices - (low + high) / 2) * scale + [0.0, model.height / 2, 0.0]
    to_z_up = np.array([[1.0, 0, 0], [0, 0, -1.0], [0, 1.0, 0]])
    normals = normals / scale.clip(1e-9) @ to_z_up.T
    return Mesh(
        (vertices @ to_z_up.T).astype(np.float32),
        faces[keep],
        uv[keep].astype(np.float32),
        (normals[keep] / np.maximum(np.linalg.norm(normals[keep], axis=-1, keepdims=True), 1e-12)).astype(np.float32),
        index[keep],
        [materials.get(n, (Material(), 1.0))[0] for n in order],
    )


def _read_obj(text: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Vertices (V, 3), faces (F, 3), corner uv (F, 3, 2), corner normals (F, 3, 3), material name of every face."""
    v, vt, vn, corners, names = [], [], [], [], []
    current = ""
    for line in text.splitlines():
        kind, _, rest = line.partition(" ")
        if kind == "v":
            v.append(rest.split()[:3])
        elif kind == "vt":
            vt.append(rest.split()[:2])
        elif kind == "vn":
            vn.append(rest.split()[:3])
        elif kind == "usemtl":
            current = rest.strip()
        elif kind == "f":
            polygon = [[*c.split("/"), "", ""][:3] for c in rest.split()]
            for k in range(1, len(polygon) - 1):  # a fan: the models' polygons are convex
                corners.append((polygon[0], polygon[k], polygon[k + 1]))
                names.append(current)
    vertices = np.array(v, float).reshape(-1, 3)
    table = np.array([[[int(x) if x else 0 for x in c] for c in f] for f in corners], int).reshape(-1, 3, 3)
    counts = np.array([len(v), len(vt), len(vn)])
    table = np.where(table < 0, table + counts, table - 1)  # OBJ counts from 1, or backwards from the end; -1 = absent
    faces = table[..., 0]
    uv = np.array([*vt, [0, 0]], float)[table[..., 1]]
    corner = vertices[faces]
    flat = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-12)
    normals = np.array([*vn, [0, 0, 0]], float)[table[..., 2]]
    missing = np.linalg.norm(normals, axis=-1, keepdims=True) < 1e-6
    return vertices, faces, uv, np.where(missing, flat[:, None], normals), names


def _read_materials(bundle: zipfile.ZipFile, folder: PurePosixPath, library: str) -> dict[str, tuple[Material, float]]:
    """Materials of one MTL file with their opacity, by name."""
    path = str(folder / library)
    if path not in bundle.namelist():
        return {}
    found: dict[str, tuple[Material, float]] = {}
    material, name = Material(), ""
    for line in bundle.read(path).decode("latin1").splitlines():
        kind, _, rest = line.strip().partition(" ")
        rest = rest.strip()
        if kind == "newmtl":
            material, name = Material(), rest
            found[name] = (material, 1.0)
        elif kind == "Kd":
            # Wholly white or black paint does not exist, and would hide all shading.
            material.color = tuple(float(np.clip(float(x), 0.03, 0.9)) for x in rest.split()[:3])
        elif kind == "Ks":
            material.specular = 0.5 * float(rest.split()[0])
        elif kind == "d":
            found[name] = (material, float(rest.split()[-1]))
        elif kind == "map_Kd":
            material.texture = _read_texture(bundle, str(folder / rest.split()[-1]))
    return found


def _read_texture(bundle: zipfile.ZipFile, path: str) -> np.ndarray | None:
    if path not in bundle.namelist():
        return None
    image = decode_image(bundle.read(path)).convert("RGB")
    image.thumbnail((_TEXTURE_PIXELS, _TEXTURE_PIXELS))
    return np.asarray(image)
