"""The ray-cast renderer against analytic projections; furniture archives by their stated licence; rooms by seed."""

import zipfile
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("embreex", reason="rendering needs the extra 'render' (embreex)")

from d2a2_core.data.scenes.furniture import find_models, load_mesh
from d2a2_core.data.scenes.render import Light, Material, Scene, look_at, render, render_depth
from d2a2_core.data.scenes.room_shapes import Room, box, lathe, quad, tube
from d2a2_core.data.scenes.rooms import make_room, random_view, view_score

K = np.array([[100.0, 0.0, 31.5], [0.0, 100.0, 23.5], [0.0, 0.0, 1.0]])
W, H = 64, 48
# A camera at the origin that looks along world +y; its x is world x, its y is world -z.
FORWARD = look_at([0, 0, 0], [0, 1, 0])


def wall(distance: float, half: float = 50.0, material: Material | None = None, tile: float = 0.0):
    return quad([-half, distance, -half], [2 * half, 0, 0], [0, 0, 2 * half], material or Material(), tile)


def test_look_at_is_a_rotation_with_world_up_towards_image_top():
    np.testing.assert_allclose(FORWARD[:3, :3], [[1, 0, 0], [0, 0, 1], [0, -1, 0]], atol=1e-12)
    pose = look_at([1, 2, 3], [0.5, -1, 0.2], roll=0.4)
    np.testing.assert_allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-12)
    assert np.linalg.det(pose[:3, :3]) == pytest.approx(1.0)


def test_frontal_plane_has_one_z_depth_and_not_the_ray_length():
    depth = render_depth(Scene([wall(2.0)]), K, FORWARD, W, H)
    np.testing.assert_allclose(depth, 2.0, atol=2e-6)  # in the corners the ray is 2.16 m long


def test_slanted_plane_matches_the_closed_form():
    # The plane y = 3 + 0.5 x, so z = 3 + 0.5 (u - cx) / fx * z.
    plane = quad([-20, -7, -20], [40, 20, 0], [0, 0, 40], Material())
    depth = render_depth(Scene([plane]), K, FORWARD, W, H)
    expected = 3.0 / (1 - 0.5 * (np.arange(W) - 31.5) / 100.0)
    np.testing.assert_allclose(depth, np.tile(expected, (H, 1)), rtol=3e-6)


def test_box_silhouette_lands_on_the_projected_pixels():
    scene = Scene([wall(5.0), box([0.49, 0.4, 0.3], Material()).placed(0.1, 2.2, -0.1)])  # front face at y = 2
    near = render_depth(scene, K, FORWARD, W, H) < 3
    u, v = np.meshgrid(np.arange(W), np.arange(H))
    x, z = (u - 31.5) / 100 * 2, -(v - 23.5) / 100 * 2
    inside = (np.abs(x - 0.1) < 0.245) & (z > -0.1) & (z < 0.2)
    np.testing.assert_array_equal(near, inside)
    assert inside.sum() == 24 * 15


def test_nothing_hit_is_nan_and_black():
    rgb, depth = render(Scene([wall(2.0, half=0.2)]), K, FORWARD, W, H, 1)
    assert np.isnan(depth[0, 0])
    assert depth[24, 32] == pytest.approx(2.0)
    assert not rgb[np.isnan(depth)].any()
    assert rgb[24, 32].min() > 0


def test_texture_lies_upright_and_unmirrored():
    quarters = (
        np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]], np.uint8).repeat(8, 0).repeat(8, 1)
    )
    picture = Material(texture=quarters)
    rgb, _ = render(Scene([wall(2.0, 0.45, picture)], ambient=(1, 1, 1)), K, FORWARD, W, H, 2)
    assert [int(rgb[v, u].argmax()) for v, u in ((12, 20), (12, 44), (36, 20))] == [0, 1, 2]
    assert np.ptp(rgb[36, 44].astype(int)) < 3


def test_an_object_between_wall_and_light_casts_its_shadow():
    light = Light((0.0, 0.0, 0.0), (4.0, 4.0, 4.0), radius=0.0)
    scene = Scene([wall(3.0), box([0.3, 0.01, 0.3], Material()).placed(0.8, 1.5, -0.15)], [light], (0.02, 0.02, 0.02))
    camera = look_at([0, 0.5, 0], [0, 1, 0])
    # The shadow's centre on the wall is (1.6, 3); its mirror place at -1.6 is lit. A wide camera sees both.
    wide = np.diag([0.4, 0.4, 1]) @ K + np.array([[0, 0, 18.9], [0, 0, 14.1], [0, 0, 0]])
    rgb, _ = render(scene, wide, camera, W, H, 1)
    u = 31.5 + 40 * 1.6 / 2.5
    assert rgb[23, round(u)].max() < 0.5 * rgb[23, round(63 - u)].min()


def test_supersampling_changes_the_colour_of_edges_only_and_never_the_depth():
    scene = Scene([wall(5.0), wall(2.0, 0.2033)], ambient=(0.5, 0.5, 0.5))
    scene.meshes[1].materials[0].color = (0.05, 0.05, 0.05)
    hard, depth1 = render(scene, K, FORWARD, W, H, 1)
    soft, depth4 = render(scene, K, FORWARD, W, H, 4)
    np.testing.assert_array_equal(depth1, depth4)
    assert len(np.unique(soft[24, :, 0])) > len(np.unique(hard[24, :, 0]))


def test_same_seed_same_picture():
    scene = Scene([wall(2.0)], [Light((0.5, 0.5, 0.5), (1, 1, 1), 0.3)])
    first, second, other = (render(scene, K, FORWARD, W, H, 2, noise=2.0, seed=s)[0] for s in (3, 3, 4))
    np.testing.assert_array_equal(first, second)
    assert (first != other).any()


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="intrinsics"):
        render(Scene([wall(2.0)]), K[:2], FORWARD, W, H)
    with pytest.raises(ValueError, match="supersample"):
        render(Scene([wall(2.0)]), K, FORWARD, W, H, 0)
    with pytest.raises(ValueError, match="at least one mesh"):
        render(Scene([]), K, FORWARD, W, H)


def test_shapes_have_their_size():
    pole = tube([[0, 0, 0], [0, 0, 1.5]], 0.02, Material())
    np.testing.assert_allclose(pole.bounds(), [[-0.02, -0.02, 0], [0.02, 0.02, 1.5]], atol=1.2e-3)
    cone = lathe([[0.2, 0], [0.1, 0.3]], Material())
    np.testing.assert_allclose(cone.bounds(), [[-0.2, -0.2, 0], [0.2, 0.2, 0.3]], atol=1e-9)
    turned = box([0.4, 0.2, 0.1], Material()).placed(1, 2, 3, np.pi / 2)
    np.testing.assert_allclose(turned.bounds(), [[0.9, 1.8, 3], [1.1, 2.2, 3.1]], atol=1e-9)


# ---- furniture archives, made here -------------------------------------------------------------------------------------------

BOX_OBJ = """mtllib m.mtl
v 0 0 0\nv 200 0 0\nv 200 100 0\nv 0 100 0\nv 0 0 50\nv 200 0 50\nv 200 100 50\nv 0 100 50
usemtl red
f 1 4 3 2\nf 5 6 7 8\nf 1 2 6 5\nf 4 8 7 3\nf 1 5 8 4
usemtl glass
f 2 3 7 6
"""
MTL = "newmtl red\nKd 0.8 0.1 0.1\nnewmtl glass\nKd 1 1 1\nd 0.2\n"
CC0 = "This file is under the Creative Commons Zero (Public Domain) license"
BY = "This file is under the Creative Commons Attribution 3.0 license"
SIZES = {
    "couch": (200, 50, 100),
    "oakTable": (90, 90, 74),
    "oakChair": (45, 45, 90),
    "bookcase": (90, 36, 150),
    "plant": (50, 50, 90),
}


def write_archive(
    path: Path, licence: str, own: dict[str, str] | None = None, sizes: dict = SIZES, category: str = "Living room"
) -> None:
    catalog = ["id=x", "license=see LICENSE.TXT"]
    with zipfile.ZipFile(path, "w") as bundle:
        bundle.writestr("LICENSE.TXT", licence)
        for n, (key, (w, d, h)) in enumerate(sizes.items(), 1):
            catalog += [
                f"name#{n}={key}",
                f"model#{n}=/m/{key}/{key}.obj",
                f"creator#{n}=Somebody",
                f"category#{n}={category}",
            ]
            catalog += [f"width#{n}={w}", f"depth#{n}={d}", f"height#{n}={h}"]
            bundle.writestr(f"m/{key}/{key}.obj", BOX_OBJ)
            bundle.writestr(f"m/{key}/m.mtl", MTL)
            if own and key in own:
                bundle.writestr(f"m/{key}/123 - LICENSE.html", own[key])
        bundle.writestr("PluginFurnitureCatalog.properties", "\n".join(catalog))


@pytest.fixture(scope="module")
def furniture(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("furniture")
    write_archive(folder / "a.sh3f", CC0)
    return folder


def test_models_are_chosen_by_stated_licence(tmp_path):
    write_archive(tmp_path / "free.sh3f", CC0, {"couch": BY, "plant": CC0, "oakChair": "All rights reserved"})
    write_archive(tmp_path / "attribution.sh3f", BY)
    models = find_models(tmp_path)
    assert {m.archive.name for m in models} == {"free.sh3f"}
    assert [m.key for m in models] == ["oakTable", "bookcase", "plant"]
    assert {m.licence for m in models} == {"CC0"}


def test_attribution_licences_are_taken_when_asked_for_and_named_with_their_version(tmp_path):
    united_states = (
        "These files are under the Creative Commons Attribution 3.0 United States license\n\tto Share: to copy"
    )
    write_archive(tmp_path / "free.sh3f", CC0, {"couch": BY})
    write_archive(tmp_path / "by.sh3f", BY, {"couch": BY, "plant": CC0, "oakChair": "All rights reserved"})
    write_archive(tmp_path / "us.sh3f", united_states)
    for number, term in enumerate(
        ("Attribution-ShareAlike 3.0", "Attribution Non-Commercial 3.0", "Attribution-NoDerivs 2.0")
    ):
        write_archive(tmp_path / f"more{number}.sh3f", f"This is under the Creative Commons {term} license")
    models = find_models(tmp_path, ("CC0", "CC-BY"))
    found = {}
    for m in models:
        found.setdefault((m.archive.name, m.licence), []).append(m.key)
    assert found == {
        ("by.sh3f", "CC-BY-3.0"): ["couch", "oakTable", "bookcase"],
        ("free.sh3f", "CC0"): ["oakTable", "oakChair", "bookcase", "plant"],
        ("us.sh3f", "CC-BY-3.0-US"): list(SIZES),
    }
    assert {m.licence for m in find_models(tmp_path, ("CC-BY",))} == {"CC-BY-3.0", "CC-BY-3.0-US"}
    for wrong in (("GPL",), (), ("CC0", "cc-by")):
        with pytest.raises(ValueError, match="expected licences out of CC0, CC-BY"):
            find_models(tmp_path, wrong)


@pytest.mark.slow
def test_people_and_furniture_to_be_credited_stand_in_rooms_and_leave_the_others_as_they_are(furniture, tmp_path):
    write_archive(
        tmp_path / "people.sh3f", BY, sizes={"male01": (60, 40, 180), "sitMale01": (60, 90, 120)}, category="Characters"
    )
    write_archive(tmp_path / "more.sh3f", BY, sizes={"stove": (60, 60, 90)}, category="Kitchen")
    write_archive(tmp_path / "doors.sh3f", BY, sizes={"door": (90, 10, 200)}, category="Doors and windows")
    free, more = find_models(furniture), find_models(tmp_path, ("CC-BY",))
    credits = set()
    for seed in range(6):
        plain, guests = (
            make_room(models, np.random.default_rng(seed), theme="living") for models in (free, free + more)
        )
        credits |= {credit.split(" ")[0] for credit in guests.credits if "CC-BY-3.0" in credit}
        assert not any("CC-BY" in credit for credit in plain.credits)
    assert credits == {"male01", "stove"}


def test_a_folder_without_models_names_the_package(tmp_path):
    with pytest.raises(FileNotFoundError, match="sweethome3d-furniture"):
        find_models(tmp_path)
    write_archive(tmp_path / "attribution.sh3f", BY)
    with pytest.raises(FileNotFoundError, match="1 archives and no CC0"):
        find_models(tmp_path)


def test_mesh_is_in_metres_on_the_floor_without_its_glass(furniture):
    model = next(m for m in find_models(furniture) if m.key == "couch")
    mesh = load_mesh(model)
    np.testing.assert_allclose(mesh.bounds(), [[-1, -0.25, 0], [1, 0.25, 1]], atol=1e-6)
    assert len(mesh.faces) == 10  # five opaque quads of six
    assert {mesh.materials[i].color for i in mesh.material} == {(0.8, 0.1, 0.1)}
    # The OBJ's front (+z) faces -y.
    front = np.abs(mesh.vertices[mesh.faces][..., 1] + 0.25).max(1) < 1e-6
    np.testing.assert_allclose(mesh.normals[front], np.broadcast_to([0, -1, 0], (front.sum(), 3, 3)), atol=1e-6)


@pytest.mark.slow
def test_room_is_closed_and_repeatable(furniture):
    models = find_models(furniture)
    first, second = (make_room(models, np.random.default_rng(5), theme="living") for _ in range(2))
    other = make_room(models, np.random.default_rng(6), theme="living")
    pose = random_view(first, K, W * 10, H * 10, np.random.default_rng(1))
    depth, again, changed = (render_depth(s, K, pose, W, H) for s in (first, second, other))
    np.testing.assert_array_equal(depth, again)
    assert not np.isnan(depth).any()
    assert (np.abs(depth - changed) > 0.01).mean() > 0.5
    assert any("couch" in c and "CC0" in c for c in first.credits)


@pytest.mark.slow
def test_furniture_stays_in_the_room_and_does_not_interpenetrate_much(furniture):
    models, pairs = find_models(furniture), 0
    for seed in range(12):
        room = make_room(models, np.random.default_rng(seed), theme="living")
        half = np.array(room.size[:2]) / 2
        red = [m.bounds() for m in room.meshes if len(m.materials) == 2]  # only the models have two materials
        for i, a in enumerate(red):
            assert (np.abs(a[:, :2]) <= half + 2e-3).all()
            for b in red[:i]:
                pairs += 1
                common = np.minimum(a[1], b[1]) - np.maximum(a[0], b[0])
                assert common.min() <= 0.2 + 1e-6  # chairs may reach under their table
    assert pairs > 30


@pytest.mark.parametrize(
    ("move", "free"),
    [
        ((0, 0, 0), True),
        ((1.8, 1.3, 2.1), True),  # touches two walls and the ceiling
        ((-1.8, -1.3, 0), True),
        ((1.9, 0, 0), False),
        ((-1.9, 0, 0), False),
        ((0, 1.4, 0), False),
        ((0, -1.4, 0), False),
        ((0, 0, 2.2), False),
    ],
)
def test_a_place_through_any_wall_or_the_ceiling_is_not_free(move, free):
    room = Room(np.array([4.0, 3.0, 2.5]), np.random.default_rng(0), [], [], [])
    thing = np.array([[-0.2, -0.2, 0.0], [0.2, 0.2, 0.4]])
    assert room.free(thing + np.array(move)) == free


def test_views_into_a_wall_are_refused():
    assert view_score(np.full((20, 20), 0.4)) == -1
    assert view_score(np.full((20, 20), np.nan)) == -1
    steps = np.full((20, 20), 3.0)
    steps[:, 10:] = 2.0
    assert view_score(steps) > view_score(np.full((20, 20), 3.0)) > 0


def test_unknown_theme_and_unfitting_models_are_named(furniture):
    models = find_models(furniture)
    with pytest.raises(ValueError, match="garage"):
        make_room(models, np.random.default_rng(0), theme="garage")
    with pytest.raises(ValueError, match="none that fits"):
        make_room([m for m in models if m.key == "oakChair"], np.random.default_rng(0), theme="kitchen")


@pytest.mark.slow
def test_the_command_writes_a_recording_and_names_what_is_missing(furniture, tmp_path, capsys):
    from d2a2_core.data.sample_recording import main
    from d2a2_core.recording import Recording

    out = tmp_path / "out"
    assert main([str(out), "--models", str(furniture), "--frames", "2", "--supersample", "1"]) == 0
    recording = Recording(out)
    assert len(recording) == 2
    assert recording.registered
    frame = recording[0]
    assert frame.color.shape == (480, 640, 3)
    assert frame.depth.shape == (120, 160)
    both = np.isfinite(frame.depth) & np.isfinite(frame.truth[2::4, 2::4])
    assert np.median(np.abs(frame.depth - frame.truth[2::4, 2::4])[both]) < 0.03
    assert "CC0" in (out / "README.md").read_text()

    assert main([str(out), "--models", str(tmp_path / "nowhere")]) == 1
    assert "sweethome3d-furniture" in capsys.readouterr().err
