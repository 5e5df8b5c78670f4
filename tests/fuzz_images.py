"""Images as bytes, and mutations of them: what other programs, and damaged disks, write.

A mutation that keeps the meaning returns True: the map must stay what it was.
"""

from __future__ import annotations

import gzip
import os
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

import nibabel as nib
import numpy as np

#: Offset and format of the fields of a NIfTI-1 header (little-endian), as the standard has them.
FIELDS = {
    "sizeof_hdr": (0, "i"),
    **{f"dim{i}": (40 + 2 * i, "h") for i in range(8)},
    "intent_code": (68, "h"),
    "datatype": (70, "h"),
    "bitpix": (72, "h"),
    **{f"pixdim{i}": (76 + 4 * i, "f") for i in range(8)},
    "vox_offset": (108, "f"),
    "scl_slope": (112, "f"),
    "scl_inter": (116, "f"),
    "xyzt_units": (123, "B"),
    "qform_code": (252, "h"),
    "sform_code": (254, "h"),
    **{f"quatern_{a}": (256 + 4 * i, "f") for i, a in enumerate("bcd")},
    **{f"qoffset_{a}": (268 + 4 * i, "f") for i, a in enumerate("xyz")},
    **{f"srow_{i // 4}{i % 4}": (280 + 4 * i, "f") for i in range(12)},
    "magic": (344, "i"),
    "extension": (348, "i"),
}
_NUMBERS = {
    "i": (0, 1, -1, 348, 540, 2**31 - 1, -(2**31), 1_000_000),
    "h": (0, 1, 2, 3, 4, 7, 8, 16, 32, 64, 128, 256, 511, 512, 768, 1024, 2304, -1, 32767, -32768),
    "B": (0, 1, 2, 3, 4, 8, 10, 17, 255),
    "f": (
        0.0,
        -0.0,
        1.0,
        -1.0,
        0.5,
        2.0,
        0.001,
        1000.0,
        1e-30,
        1e30,
        float("nan"),
        float("inf"),
        float("-inf"),
        352.0,
        351.0,
        1e9,
    ),
}


def plain_bytes(path: Path) -> bytes:
    """Content of an image file, unpacked."""
    content = path.read_bytes()
    return gzip.decompress(content) if path.suffix == ".gz" else content


def put(path: Path, content: bytes) -> None:
    """Write an image file, packed as its name says."""
    path.write_bytes(gzip.compress(content, 1) if path.suffix == ".gz" else content)


def set_field(path: Path, name: str, value: float) -> None:
    """Change a number in a header."""
    offset, kind = FIELDS[name]
    content = bytearray(plain_bytes(path))
    struct.pack_into("<" + kind, content, offset, value)
    put(path, bytes(content))


def rewrite(
    path: Path, change: Callable[[np.ndarray], np.ndarray], affine=None, dtype=None
) -> None:
    """Change the voxels, and the affine if asked."""
    image = nib.load(path)
    array = change(np.asarray(image.dataobj))
    array = array if dtype is None else array.astype(dtype)
    new = nib.Nifti1Image(array, image.affine if affine is None else affine)
    path.unlink()
    nib.save(new, path)


# --- the same image in other clothes -----------------------------------------------------------


def big_endian(paths: Sequence[Path], rng: Random) -> bool:
    for path in paths:
        image = nib.load(path)
        header = image.header.as_byteswapped(">")
        array = np.asarray(image.dataobj)
        swapped = nib.Nifti1Image(array.astype(array.dtype.newbyteorder(">")), None, header)
        swapped.set_sform(image.affine, 1)
        path.unlink()
        nib.save(swapped, path)
    return True


def float64(paths: Sequence[Path], rng: Random) -> bool:
    for path in paths:
        rewrite(path, lambda a: a, dtype=np.float64)
    return True


def int16_with_slope(paths: Sequence[Path], rng: Random) -> bool:
    """Stored as a scanner would: whole numbers, and what they stand for in the header."""
    for path in paths:
        image = nib.load(path)
        array = np.asarray(image.dataobj, dtype=np.float64)
        new = nib.Nifti1Image(array, image.affine)
        new.set_data_dtype(np.int16)
        path.unlink()
        nib.save(new, path)
    # Whole numbers of labels do not survive it.
    return all("MEGRE" in path.name for path in paths)


def nifti2(paths: Sequence[Path], rng: Random) -> bool:
    for path in paths:
        image = nib.load(path)
        new = nib.Nifti2Image(np.asarray(image.dataobj), image.affine)
        path.unlink()
        nib.save(new, path)
    return True


def uncompressed(paths: Sequence[Path], rng: Random) -> bool:
    for path in paths:
        if path.suffix == ".gz":
            path.with_suffix("").write_bytes(plain_bytes(path))
            path.unlink()
    return True


def trailing_dimensions(paths: Sequence[Path], rng: Random) -> bool:
    extra = (1,) * rng.choice([1, 2, 4])
    for path in paths:
        rewrite(path, lambda a: a.reshape(a.shape + extra))
    return True


def header_extension(paths: Sequence[Path], rng: Random) -> bool:
    for path in paths:
        image = nib.load(path)
        new = nib.Nifti1Image(np.asarray(image.dataobj), image.affine)
        new.header.extensions.append(
            nib.nifti1.Nifti1Extension("comment", b"<qx onerror=1>" + rng.randbytes(50))
        )
        path.unlink()
        nib.save(new, path)
    return True


def other_form_only(paths: Sequence[Path], rng: Random) -> bool:
    """The same orientation as a qform alone."""
    for path in paths:
        set_field(path, "sform_code", 0)
        image = nib.load(path)
        new = nib.Nifti1Image(np.asarray(image.dataobj), nib.load(path).affine)
        new.set_qform(image.header.get_qform(coded=False), 1)
        new.set_sform(None, 0)
        path.unlink()
        nib.save(new, path)
    return True


def linked(paths: Sequence[Path], rng: Random) -> bool:
    """Symbolic links into a store outside the dataset, as DataLad makes them."""
    for path in paths:
        store = path.parents[3] / "store"
        store.mkdir(exist_ok=True)
        target = store / f"{path.parents[2].name}-{path.name}"
        os.replace(path, target)
        path.symlink_to(target if rng.random() < 0.5 else os.path.relpath(target, path.parent))
    return True


SAME = (
    big_endian,
    float64,
    int16_with_slope,
    nifti2,
    uncompressed,
    trailing_dimensions,
    header_extension,
    other_form_only,
    linked,
)

# --- something is wrong ------------------------------------------------------------------------


def header_field(paths: Sequence[Path], rng: Random) -> bool:
    names = rng.sample(sorted(FIELDS), rng.choice([1, 1, 1, 2, 3]))
    for name in names:
        value = rng.choice(_NUMBERS[FIELDS[name][1]])
        for path in paths:
            set_field(path, name, value)
    return False


def header_bytes(paths: Sequence[Path], rng: Random) -> bool:
    """Some bits of the header turn over."""
    flips = [(rng.randrange(352), 1 << rng.randrange(8)) for _ in range(rng.choice([1, 1, 2, 8]))]
    for path in paths:
        content = bytearray(plain_bytes(path))
        for at, bit in flips:
            content[at] ^= bit
        put(path, bytes(content))
    return False


def header_noise(paths: Sequence[Path], rng: Random) -> bool:
    for path in paths:
        content = plain_bytes(path)
        start = rng.choice([0, 40, 76, 252])
        put(path, content[:start] + rng.randbytes(352 - start) + content[352:])
    return False


def cut(paths: Sequence[Path], rng: Random) -> bool:
    path = rng.choice(paths)
    content = path.read_bytes()
    path.write_bytes(content[: rng.choice([0, 1, 10, 100, len(content) // 2, len(content) - 1])])
    return False


def cut_inside(paths: Sequence[Path], rng: Random) -> bool:
    """A gzip file that is whole, of an image that is not."""
    path = rng.choice(paths)
    content = plain_bytes(path)
    put(path, content[: rng.choice([0, 10, 347, 348, 352, len(content) // 2, len(content) - 1])])
    return False


def flipped_bytes_of_gzip(paths: Sequence[Path], rng: Random) -> bool:
    path = rng.choice(paths)
    content = bytearray(path.read_bytes())
    for _ in range(rng.choice([1, 10, 100])):
        content[rng.randrange(10, len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(bytes(content))
    return False


def no_image(paths: Sequence[Path], rng: Random) -> bool:
    path = rng.choice(paths)
    content = rng.choice([b"", b"\x1f\x8b", b"<html></html>", rng.randbytes(5000), b"\0" * 5000])
    path.write_bytes(gzip.compress(content) if rng.random() < 0.3 else content)
    return False


def bomb(paths: Sequence[Path], rng: Random) -> bool:
    """A header that promises far more voxels than there are, or can be."""
    size = rng.choice([2000, 32767])
    for name in ("dim1", "dim2", "dim3"):
        for path in paths:
            set_field(path, name, size)
    return False


def other_type(paths: Sequence[Path], rng: Random) -> bool:
    kind = rng.choice(["complex64", "complex128", "rgb", "uint8", "int64", "uint16", "int8"])
    for path in paths:
        if kind == "rgb":
            rgb = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
            array = np.zeros(nib.load(path).shape, rgb)
            array["R"] = np.abs(np.asarray(nib.load(path).dataobj)).astype(np.uint8)
            affine = nib.load(path).affine
            path.unlink()
            nib.save(nib.Nifti1Image(array, affine), path)
        elif kind.startswith("complex"):
            rewrite(path, lambda a: a * np.exp(0.7j), dtype=kind)
        else:
            image = nib.load(path)
            new = nib.Nifti1Image(np.asarray(image.dataobj).astype(kind), image.affine, dtype=kind)
            path.unlink()
            nib.save(new, path)
    return False


def echoes_in_one_file(paths: Sequence[Path], rng: Random) -> bool:
    count = rng.choice([2, 3, 5])
    for path in paths:
        rewrite(path, lambda a: np.stack([a] * count, axis=-1))
    return False


def other_shape(paths: Sequence[Path], rng: Random) -> bool:
    axis, size = rng.randrange(3), rng.choice([0, 1, 2, 3, 8])
    for path in paths:
        rewrite(path, lambda a: np.take(a, range(size), axis=axis))
    return False


def one_slab(paths: Sequence[Path], rng: Random) -> bool:
    """A corner of the image, as small as can be."""
    size = rng.choice([1, 2, 4])
    for path in paths:
        rewrite(path, lambda a: a[8 : 8 + size, 10 : 10 + size, 9 : 9 + size])
    return False


def not_finite(paths: Sequence[Path], rng: Random) -> bool:
    path = rng.choice(paths)
    value = rng.choice([np.nan, np.inf, -np.inf])

    def change(array):
        array = array.astype(np.float32)
        array[tuple(rng.randrange(n) for n in array.shape)] = value
        return array

    rewrite(path, change, dtype=np.float32)
    return False


def one_value(paths: Sequence[Path], rng: Random) -> bool:
    value = rng.choice([0, 1, -3, 1e30])
    for path in paths:
        rewrite(path, lambda a: np.full(a.shape, value, np.float32))
    return False


def scaled(paths: Sequence[Path], rng: Random) -> bool:
    """All values in another unit."""
    factor = rng.choice([-1, 0.5, 2, 10, 1000, 1 / 6.2832, 57.29578, 651.8986, 1e30, 1e-30])
    for path in paths:
        rewrite(path, lambda a: (a.astype(np.float64) * factor).astype(np.float32))
    return False


def huge_values(paths: Sequence[Path], rng: Random) -> bool:
    path = rng.choice(paths)
    value = rng.choice([1e38, -1e38, 3.4e38])

    def change(array):
        array = array.astype(np.float64)
        array[8:16, 11:15, 9:13] = value
        return array

    rewrite(path, change)
    return False


def turned_form(paths: Sequence[Path], rng: Random) -> bool:
    """sform and qform contradict each other, or both are turned."""
    angle = np.deg2rad(rng.choice([3, 20, 90, 180]))
    c, s = np.cos(angle), np.sin(angle)
    turn = np.eye(4)
    turn[:3, :3] = rng.choice(
        [[[1, 0, 0], [0, c, -s], [0, s, c]], [[c, 0, s], [0, 1, 0], [-s, 0, c]]]
    )
    which, code = rng.choice(["q", "s"]), rng.choice([1, 2, 4])
    for path in paths:
        image = nib.load(path)
        new = nib.Nifti1Image(np.asarray(image.dataobj), image.affine)
        new.set_qform(turn @ image.affine if which == "q" else image.affine, 1)
        new.set_sform(turn @ image.affine if which == "s" else image.affine, code)
        path.unlink()
        nib.save(new, path)
    return False


def odd_affine(paths: Sequence[Path], rng: Random) -> bool:
    kind = rng.choice(["shear", "zero", "nan", "tiny", "huge", "none", "singular", "metres"])
    broken = {"zero": ("srow_00", 0.0), "nan": ("srow_11", np.nan), "singular": ("srow_22", 0.0)}
    for path in paths:
        if kind in broken:
            # Libraries write no such header.
            set_field(path, *broken[kind])
            continue
        image = nib.load(path)
        affine = image.affine.copy()
        if kind == "shear":
            affine[0, 1] += 0.3 * affine[0, 0]
        elif kind == "tiny":
            affine[:3, :3] *= 1e-4
        elif kind == "huge":
            affine[:3, :3] *= 1e4
        elif kind == "metres":
            affine[:3] *= 1e-3
        new = nib.Nifti1Image(np.asarray(image.dataobj), None)
        if kind == "metres":
            new.header.set_xyzt_units("meter")
        if kind != "none":
            new.set_sform(affine, 1)
        path.unlink()
        nib.save(new, path)
    return False


WRONG = (
    header_field,
    header_field,
    header_field,
    header_field,
    header_bytes,
    header_bytes,
    header_noise,
    cut,
    cut_inside,
    flipped_bytes_of_gzip,
    no_image,
    bomb,
    other_type,
    echoes_in_one_file,
    other_shape,
    one_slab,
    not_finite,
    one_value,
    scaled,
    scaled,
    huge_values,
    turned_form,
    turned_form,
    odd_affine,
    odd_affine,
)
