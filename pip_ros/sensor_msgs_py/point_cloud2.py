"""PointCloud2 messages from and to NumPy arrays: a stand-in for sensor_msgs_py.point_cloud2 (Python API of Jazzy).

Convention: a structured array has one field per PointField, at the field's byte offset, and `point_step` bytes per
point; a field with count n > 1 becomes n fields `name_0` ... `name_{n-1}`; a field without a name becomes
`unnamed_field_{index}`. Wrong input raises AssertionError, as in the real package.
"""

import array
import sys
from collections import namedtuple
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.lib.recfunctions import structured_to_unstructured
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header

DUMMY_FIELD_PREFIX = "unnamed_field"

_DATATYPES = {
    PointField.INT8: np.dtype(np.int8),
    PointField.UINT8: np.dtype(np.uint8),
    PointField.INT16: np.dtype(np.int16),
    PointField.UINT16: np.dtype(np.uint16),
    PointField.INT32: np.dtype(np.int32),
    PointField.UINT32: np.dtype(np.uint32),
    PointField.FLOAT32: np.dtype(np.float32),
    PointField.FLOAT64: np.dtype(np.float64),
}


def dtype_from_fields(fields: Iterable[PointField], point_step: int | None = None) -> np.dtype:
    """Structured dtype, in native byte order, of points with `fields`; `point_step` bytes each if given."""
    names, formats, offsets = [], [], []
    for index, field in enumerate(fields):
        dtype = _DATATYPES[field.datatype]
        base = field.name or f"{DUMMY_FIELD_PREFIX}_{index}"
        assert field.count > 0, f"expected a count of at least 1 for field '{base}', got {field.count}"
        for i in range(field.count):
            name = base if field.count == 1 else f"{base}_{i}"
            assert name not in names, f"expected field names to differ, got '{name}' twice"
            names.append(name)
            formats.append(dtype)
            offsets.append(field.offset + i * dtype.itemsize)
    layout = {"names": names, "formats": formats, "offsets": offsets}
    if point_step is not None:
        layout["itemsize"] = point_step
    return np.dtype(layout)


def read_points(
    cloud: PointCloud2,
    field_names: Sequence[str] | None = None,
    skip_nans: bool = False,
    uvs: Iterable | None = None,
    reshape_organized_cloud: bool = False,
) -> np.ndarray:
    """Points of `cloud` as a structured array of shape (width * height,), row after row.

    Shares the message's memory where it can. `field_names` selects fields. `skip_nans` leaves out points with a NaN in
    a selected field, unless the message says is_dense. `uvs` are indices into what is left. With
    `reshape_organized_cloud` the shape of a cloud with more than one row is (width, height), as in the real package.
    """
    assert isinstance(cloud, PointCloud2), f"expected a sensor_msgs.msg.PointCloud2, got {type(cloud).__name__}"
    native = dtype_from_fields(cloud.fields, point_step=cloud.point_step)
    swapped = bool(cloud.is_bigendian) != (sys.byteorder == "big")
    # Rows may be padded. Where row_step cannot be right (some drivers leave it unset), rows follow each other.
    row_step = cloud.width * cloud.point_step
    if cloud.row_step > row_step and cloud.row_step * cloud.height <= len(cloud.data):
        row_step = cloud.row_step
    points = np.ndarray(
        shape=(cloud.height, cloud.width),
        dtype=native.newbyteorder() if swapped else native,
        buffer=cloud.data,
        strides=(row_step, cloud.point_step),
    ).reshape(-1)

    if field_names is not None:
        missing = [name for name in field_names if name not in points.dtype.names]
        assert not missing, f"expected fields among {points.dtype.names}, got {missing}"
        points = points[list(field_names)]
    if swapped:
        points = points.astype(points.dtype.newbyteorder())
    if skip_nans and not cloud.is_dense:
        valid = np.ones(len(points), dtype=bool)
        for name in points.dtype.names:
            valid &= ~np.isnan(points[name])
        points = points[valid]
    if uvs is not None:
        points = points[uvs if isinstance(uvs, np.ndarray) else np.fromiter(uvs, int)]
    if reshape_organized_cloud and cloud.height > 1:
        points = points.reshape(cloud.width, cloud.height)
    return points


def read_points_numpy(
    cloud: PointCloud2,
    field_names: Sequence[str] | None = None,
    skip_nans: bool = False,
    uvs: Iterable | None = None,
    reshape_organized_cloud: bool = False,
) -> np.ndarray:
    """Like `read_points`, as a plain array of shape (..., number of fields); the fields must have one datatype."""
    # Compares with the cloud's first field even where that one is not selected, as the real package does.
    types = [f.datatype for f in cloud.fields[1:] if field_names is None or f.name in field_names]
    assert all(t == cloud.fields[0].datatype for t in types), (
        f"expected fields of one datatype, got {[(f.name, f.datatype) for f in cloud.fields]}: use read_points()"
    )
    return structured_to_unstructured(read_points(cloud, field_names, skip_nans, uvs, reshape_organized_cloud))


def read_points_list(
    cloud: PointCloud2,
    field_names: Sequence[str] | None = None,
    skip_nans: bool = False,
    uvs: Iterable | None = None,
) -> list[NamedTuple]:
    """Like `read_points`, as a list of named tuples (slow)."""
    assert isinstance(cloud, PointCloud2), f"expected a sensor_msgs.msg.PointCloud2, got {type(cloud).__name__}"
    point = namedtuple("Point", [f.name for f in cloud.fields] if field_names is None else field_names)
    return [point._make(p) for p in read_points(cloud, field_names, skip_nans, uvs)]


def create_cloud(
    header: Header, fields: Sequence[PointField], points: Iterable, point_step: int | None = None
) -> PointCloud2:
    """PointCloud2 message, in native byte order, with is_dense false.

    `points`: a structured array of the dtype of `fields`; or a plain array with one value per field on its last axis,
    where all fields have one datatype; or an iterable with one iterable of values per point (slow). Points of shape
    (A,) give a cloud with width A and height 1; points of shape (A, B) one with width A and height B, stored in the
    array's order, as in the real package: pass an image-ordered (H, W) grid flat and set height, width and row_step.
    """
    dtype = dtype_from_fields(fields, point_step)
    if not isinstance(points, np.ndarray):
        points = np.array([tuple(p) for p in points], dtype=dtype)
    elif points.dtype.names is None:
        assert all(f.datatype == fields[0].datatype for f in fields[1:]), (
            f"expected fields of one datatype for a plain array, got {[(f.name, f.datatype) for f in fields]}: "
            "pass a structured array"
        )
        points = _structured(points, dtype)
    assert points.dtype == dtype, f"expected points of dtype {dtype} for these fields, got {points.dtype}"
    assert points.ndim <= 2, f"expected at most two dimensions of points, got shape {points.shape}"

    width = points.shape[0]
    cloud = PointCloud2(
        header=header,
        height=points.shape[1] if points.ndim == 2 else 1,
        width=width,
        is_dense=False,
        is_bigendian=sys.byteorder == "big",
        fields=fields,
        point_step=dtype.itemsize,
        row_step=dtype.itemsize * width,
    )
    # An array.array is taken over as it is; bytes would be copied and an ndarray checked value by value.
    data = array.array("B")
    data.frombytes(np.ascontiguousarray(points).reshape(-1).view(np.uint8).data)
    cloud.data = data
    return cloud


def create_cloud_xyz32(header: Header, points: Iterable) -> PointCloud2:
    """PointCloud2 message with float32 fields x, y, z from points of shape (..., 3); see `create_cloud`."""
    fields = [PointField(name=n, offset=4 * i, datatype=PointField.FLOAT32, count=1) for i, n in enumerate("xyz")]
    return create_cloud(header, fields, points)


def _structured(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Structured array of `dtype` from values of shape (..., number of fields); padding bytes are zero."""
    if values.shape[-1] != len(dtype.names):
        raise ValueError(f"expected {len(dtype.names)} values per point for {dtype.names}, got {values.shape[-1]}")
    base = dtype[0]
    packed = all(dtype.fields[n][1] == i * base.itemsize for i, n in enumerate(dtype.names))
    if packed and dtype.itemsize == len(dtype.names) * base.itemsize and values.size:
        return np.ascontiguousarray(values, dtype=base).view(dtype)[..., 0]
    points = np.zeros(values.shape[:-1], dtype=dtype)
    for i, name in enumerate(dtype.names):
        points[name] = values[..., i]
    return points
