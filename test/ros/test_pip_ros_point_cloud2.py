"""sensor_msgs_py.point_cloud2 works as documented, be it the real package or the stand-in of pip_ros."""

import array
import struct
import sys

import numpy as np
import pytest

sensor_msgs_py = pytest.importorskip("sensor_msgs_py", reason="sensor_msgs_py is not installed", exc_type=ImportError)
msgs = pytest.importorskip("sensor_msgs.msg", reason="sensor_msgs is not installed", exc_type=ImportError)
std_msgs = pytest.importorskip("std_msgs.msg", reason="std_msgs is not installed", exc_type=ImportError)
from sensor_msgs_py import point_cloud2  # noqa: E402

PointCloud2, PointField = msgs.PointCloud2, msgs.PointField
STAND_IN = getattr(sensor_msgs_py, "IS_STAND_IN", False)
HEADER = std_msgs.Header(frame_id="camera_color_optical_frame")


def only_stand_in(what):
    return pytest.mark.skipif(not STAND_IN, reason=f"the real sensor_msgs_py {what}")


def field(name, offset, datatype=PointField.FLOAT32, count=1):
    return PointField(name=name, offset=offset, datatype=datatype, count=count)


XYZ = [field("x", 0), field("y", 4), field("z", 8)]


def cloud_of(fields, packed, point_step, width, height=1, row_step=None, big=False, dense=False):
    """A message made by hand from the bytes of its points."""
    cloud = PointCloud2(height=height, width=width, fields=fields, is_bigendian=big, is_dense=dense)
    cloud.point_step, cloud.row_step = point_step, point_step * width if row_step is None else row_step
    cloud.data = array.array("B", packed)
    return cloud


@pytest.mark.parametrize(
    ("name", "code", "size"),
    [
        ("INT8", "b", 1),
        ("UINT8", "B", 1),
        ("INT16", "h", 2),
        ("UINT16", "H", 2),
        ("INT32", "i", 4),
        ("UINT32", "I", 4),
        ("FLOAT32", "f", 4),
        ("FLOAT64", "d", 8),
    ],
)
def test_every_datatype_reads_what_struct_packed(name, code, size):
    fields = [field("a", 0, getattr(PointField, name)), field("b", size, PointField.UINT8)]
    values = [(3, 200), (100, 7)]
    for big in (False, True):
        packed = b"".join(struct.pack((">" if big else "<") + code + "B", *v) for v in values)
        points = point_cloud2.read_points(cloud_of(fields, packed, size + 1, 2, big=big))
        assert points.tolist() == values
        assert points.dtype["a"].isnative


def test_fields_at_offsets_with_padding_between_and_after():
    fields = [field("x", 4), field("intensity", 10, PointField.UINT16)]
    packed = b"".join(struct.pack("<4xf2xH8x", x, i) for x, i in [(1.5, 10), (-2.5, 20)])
    cloud = cloud_of(fields, packed, 20, 2)
    assert point_cloud2.read_points(cloud).tolist() == [(1.5, 10), (-2.5, 20)]
    assert point_cloud2.read_points(cloud, field_names=["intensity"]).tolist() == [(10,), (20,)]
    assert point_cloud2.read_points(cloud, field_names=["intensity", "x"]).dtype.names == ("intensity", "x")


def test_dtype_from_fields():
    dtype = point_cloud2.dtype_from_fields([field("x", 4), field("n", 8, PointField.FLOAT64, 2), field("", 24)], 32)
    assert dtype.names == ("x", "n_0", "n_1", "unnamed_field_2")
    assert [dtype.fields[n][1] for n in dtype.names] == [4, 8, 16, 24]
    assert dtype.itemsize == 32
    assert point_cloud2.dtype_from_fields(XYZ) == np.dtype([("x", "f4"), ("y", "f4"), ("z", "f4")])
    for wrong in ([field("x", 0), field("x", 4)], [field("x", 0, count=0)]):
        with pytest.raises(AssertionError):
            point_cloud2.dtype_from_fields(wrong)


def test_nans_are_skipped_by_selected_field_and_unless_dense():
    values = np.array([[1, 2, 3], [np.nan, 2, 3], [1, 2, np.nan], [4, 5, 6]], np.float32)
    cloud = point_cloud2.create_cloud_xyz32(HEADER, values)
    assert len(point_cloud2.read_points(cloud)) == 4
    np.testing.assert_array_equal(point_cloud2.read_points_numpy(cloud, skip_nans=True), values[[0, 3]])
    picked = point_cloud2.read_points_numpy(cloud, field_names=["x", "y"], skip_nans=True)
    np.testing.assert_array_equal(picked, values[[0, 2, 3], :2])
    cloud.is_dense = True
    assert len(point_cloud2.read_points(cloud, skip_nans=True)) == 4


def test_nans_are_looked_for_in_integer_fields_too_and_never_found():
    cloud = cloud_of([field("i", 0, PointField.INT32)], struct.pack("<2i", -1, 5), 4, 2)
    assert point_cloud2.read_points(cloud, skip_nans=True).tolist() == [(-1,), (5,)]


def test_uvs_pick_points_after_nans_were_skipped():
    values = np.array([[np.nan, 0, 0], [1, 1, 1], [2, 2, 2], [3, 3, 3]], np.float32)
    cloud = point_cloud2.create_cloud_xyz32(HEADER, values)
    np.testing.assert_array_equal(point_cloud2.read_points_numpy(cloud, uvs=[2, 1]), values[[2, 1]])
    np.testing.assert_array_equal(point_cloud2.read_points_numpy(cloud, uvs=np.array([3])), values[[3]])
    after = point_cloud2.read_points_numpy(cloud, uvs=iter([0, 2]), skip_nans=True)
    np.testing.assert_array_equal(after, values[[1, 3]])


def test_read_points_list_gives_named_tuples():
    cloud = point_cloud2.create_cloud_xyz32(HEADER, [(1.0, 2.0, 3.0)])
    (point,) = point_cloud2.read_points_list(cloud)
    assert (point.x, point.y, point.z) == (1.0, 2.0, 3.0)
    assert point_cloud2.read_points_list(cloud, field_names=["z"])[0]._fields == ("z",)


def test_create_cloud_xyz32_message():
    cloud = point_cloud2.create_cloud_xyz32(HEADER, [(1.0, 2.0, 3.0), (4.0, 5.0, 6.0)])
    assert cloud.header.frame_id == HEADER.frame_id
    assert [(f.name, f.offset, f.datatype, f.count) for f in cloud.fields] == [
        (name, 4 * i, PointField.FLOAT32, 1) for i, name in enumerate("xyz")
    ]
    assert (cloud.width, cloud.height, cloud.point_step, cloud.row_step) == (2, 1, 12, 24)
    assert (cloud.is_dense, cloud.is_bigendian) == (False, sys.byteorder == "big")
    assert isinstance(cloud.data, array.array)
    assert bytes(cloud.data) == struct.pack("=6f", 1, 2, 3, 4, 5, 6)


def test_create_cloud_from_structured_plain_and_python_values_agree():
    rows = [(1.0, 2.0, 3.0), (4.0, 5.0, 6.0)]
    structured = np.array(rows, dtype=point_cloud2.dtype_from_fields(XYZ))
    plain = np.array(rows, dtype=np.float64)
    clouds = [point_cloud2.create_cloud(HEADER, XYZ, points) for points in (rows, structured, plain)]
    assert clouds[0] == clouds[1] == clouds[2]


def test_mixed_fields_make_a_round_trip_with_padding():
    fields = [*XYZ, field("rgb", 16), field("provenance", 20, PointField.UINT8), field("t", 24, PointField.FLOAT64)]
    points = np.zeros(7, dtype=point_cloud2.dtype_from_fields(fields, 40))
    rng = np.random.default_rng(0)
    for name in points.dtype.names:
        points[name] = rng.integers(0, 255, 7)
    cloud = point_cloud2.create_cloud(HEADER, fields, points, point_step=40)
    assert (cloud.point_step, cloud.row_step, len(cloud.data)) == (40, 280, 280)
    np.testing.assert_array_equal(point_cloud2.read_points(cloud), points)


def test_plain_array_into_padded_points():
    values = np.arange(12, dtype=np.float32).reshape(4, 3)
    cloud = point_cloud2.create_cloud(HEADER, [field("x", 0), field("y", 8), field("z", 16)], values, point_step=32)
    np.testing.assert_array_equal(point_cloud2.read_points_numpy(cloud), values)
    x, z = struct.unpack_from("=f12xf", bytes(cloud.data), 32)
    assert (x, z) == (3.0, 5.0)


def test_fields_with_a_count():
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    cloud = point_cloud2.create_cloud(HEADER, [field("normal", 0, count=3)], values)
    assert point_cloud2.read_points(cloud).dtype.names == ("normal_0", "normal_1", "normal_2")
    np.testing.assert_array_equal(point_cloud2.read_points_numpy(cloud), values)


def test_wrong_input_is_refused():
    mixed = [field("x", 0), field("label", 4, PointField.UINT8)]
    with pytest.raises(AssertionError):  # mixed types from a plain array
        point_cloud2.create_cloud(HEADER, mixed, np.zeros((2, 2), np.float32))
    with pytest.raises(AssertionError):  # a dtype that is not that of the fields
        point_cloud2.create_cloud(HEADER, mixed, np.zeros(2, [("x", "f4"), ("label", "u2")]))
    with pytest.raises(ValueError, match=r"."):  # too few values
        point_cloud2.create_cloud(HEADER, XYZ, np.zeros((2, 2), np.float32))
    with pytest.raises(AssertionError):  # three dimensions of points
        point_cloud2.create_cloud(HEADER, XYZ, np.zeros((2, 2, 2, 3), np.float32))
    cloud = point_cloud2.create_cloud(HEADER, mixed, np.zeros(2, point_cloud2.dtype_from_fields(mixed)))
    with pytest.raises(AssertionError):  # mixed types to a plain array
        point_cloud2.read_points_numpy(cloud)
    with pytest.raises(AssertionError):  # no such field
        point_cloud2.read_points(cloud, field_names=["y"])
    with pytest.raises(AssertionError):  # not a cloud
        point_cloud2.read_points(HEADER)


def test_two_dimensional_points_set_width_from_the_first_axis():
    """The real package's convention, the other way round from an image: (A, B) points are A wide and B high."""
    values = np.arange(2 * 3 * 3, dtype=np.float32).reshape(2, 3, 3)
    cloud = point_cloud2.create_cloud_xyz32(HEADER, values)
    assert (cloud.width, cloud.height, cloud.row_step) == (2, 3, 24)
    assert bytes(cloud.data) == values.tobytes()
    assert point_cloud2.read_points(cloud).shape == (6,)
    np.testing.assert_array_equal(point_cloud2.read_points_numpy(cloud, reshape_organized_cloud=True), values)


def test_an_image_ordered_grid_is_passed_flat_and_given_its_shape():
    """How to get an organised cloud whose row v, column u is point v * width + u, with either package."""
    height, width = 3, 4
    v, u = np.mgrid[:height, :width].astype(np.float32)
    grid = np.stack([u, v, np.ones_like(u)], axis=-1)
    cloud = point_cloud2.create_cloud_xyz32(HEADER, grid.reshape(-1, 3))
    cloud.height, cloud.width, cloud.row_step = height, width, width * cloud.point_step
    points = point_cloud2.read_points_numpy(cloud)
    np.testing.assert_array_equal(points.reshape(height, width, 3), grid)


def test_a_big_endian_cloud_with_selected_fields():
    packed = b"".join(struct.pack(">fHxx", x, n) for x, n in [(1.25, 258), (-3.5, 1)])
    cloud = cloud_of([field("x", 0), field("n", 4, PointField.UINT16)], packed, 8, 2, big=True)
    assert point_cloud2.read_points(cloud, field_names=["n", "x"]).tolist() == [(258, 1.25), (1, -3.5)]


def test_reading_shares_the_message_memory():
    cloud = point_cloud2.create_cloud_xyz32(HEADER, np.zeros((5, 3), np.float32))
    points = point_cloud2.read_points(cloud)
    assert np.shares_memory(points, np.frombuffer(cloud.data, np.uint8))


@only_stand_in("swaps the message in place, so that a second read is wrong")
def test_a_big_endian_cloud_is_left_as_it_is():
    cloud = cloud_of([field("x", 0)], struct.pack(">2f", 1.0, 2.0), 4, 2, big=True)
    for _ in range(2):
        assert point_cloud2.read_points(cloud).tolist() == [(1.0,), (2.0,)]
    assert bytes(cloud.data) == struct.pack(">2f", 1.0, 2.0)


@only_stand_in("ignores row_step")
def test_padded_rows():
    packed = struct.pack("<2f5x2f5x", 1, 2, 3, 4)
    cloud = cloud_of([field("x", 0)], packed, 4, width=2, height=2, row_step=13)
    assert point_cloud2.read_points(cloud).tolist() == [(1.0,), (2.0,), (3.0,), (4.0,)]


@pytest.mark.parametrize("row_step", [0, 4, 10**6])
def test_a_row_step_that_cannot_be_is_ignored(row_step):
    cloud = cloud_of([field("x", 0)], struct.pack("<4f", 1, 2, 3, 4), 4, width=2, height=2, row_step=row_step)
    assert point_cloud2.read_points(cloud).tolist() == [(1.0,), (2.0,), (3.0,), (4.0,)]


@only_stand_in("cannot create an empty cloud")
@pytest.mark.parametrize("points", [[], np.zeros((0, 3), np.float32)])
def test_an_empty_cloud(points):
    cloud = point_cloud2.create_cloud_xyz32(HEADER, points)
    assert (cloud.width, cloud.height, len(cloud.data)) == (0, 1, 0)
    assert point_cloud2.read_points_numpy(cloud, skip_nans=True).shape == (0, 3)
