"""Images and their masks of classes: which belong together, and reading them without guessing."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from settlepoint.data.registry import DataError

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".tif", ".tiff")
MASKS = (".png", ".bmp", ".tif", ".tiff", ".mat")

Pair = tuple[Path, Path]  # image, mask

_RULE = "a mask must be 8-bit grey or palette, one number a pixel"
_BROKEN = (OSError, ValueError, EOFError, struct.error, zlib.error)  # what readers raise for a file that is cut short


@dataclass(frozen=True)
class Labels:
    """What the numbers in a mask mean.

    classes: masks hold 0 ... classes - 1; None takes them as they come. void: the number of pixels without a class.
    void_to: the class that such pixels get; None leaves them unscored. Raises ValueError when these contradict.
    """

    classes: int | None = None
    void: int | None = None
    void_to: int | None = None

    def __post_init__(self):
        if self.classes is not None and self.classes < 1:
            raise ValueError(f"classes must be at least 1, got {self.classes}")
        if self.void is not None and self.void < 0:
            raise ValueError(f"void must be 0 or more, as the values of a mask are, got {self.void}")
        if self.void_to is None:
            return
        if self.void is None:
            raise ValueError(f"void_to needs void, the number it replaces, got void_to {self.void_to} alone")
        if self.void_to < 0 or self.void_to == self.void or self.void_to >= (self.classes or self.void_to + 1):
            raise ValueError(
                f"void_to must be a class, got {self.void_to} with {self.classes} classes, void {self.void}"
            )

    @property
    def unscored(self) -> int | None:
        """The number that stays in the masks and is no class."""
        return self.void if self.void_to is None else None

    def applied(self, values: np.ndarray, path: Path) -> np.ndarray:
        """values with void replaced by void_to. Raises DataError, naming the file, for a class that does not exist."""
        known = values[values != self.void] if self.void is not None else values
        unknown = np.unique(known[known >= self.classes]) if self.classes is not None else known[:0]
        if len(unknown):
            rule = f"in [0, {self.classes})" + ("" if self.void is None else f" or void, {self.void}")
            raise DataError(f"{path}: the classes of a mask must lie {rule}, got {', '.join(map(str, unknown[:5]))}")
        return values if self.void_to is None else np.where(values == self.void, self.void_to, values)


def pairs(images: Path, masks: Path, only: Sequence[str] | None = None) -> list[Pair]:
    """Images with their masks, matched by the file name without its ending; of two files, those two.

    Sorted by name; or those of `only`, in that order. Raises DataError, naming the files, for an image without a mask,
    a mask without an image (unless `only` chooses), two files of the same name, and folders without images.
    """
    if images.is_file() and masks.is_file():
        return [(images, masks)]
    image_of, mask_of = _stems(images, IMAGES, "image"), _stems(masks, MASKS, "mask")
    names = sorted(image_of) if only is None else list(only)
    for what, found, folder, kinds in (("image", image_of, images, IMAGES), ("mask", mask_of, masks, MASKS)):
        wanted = names if only is not None else sorted(image_of | mask_of)
        lacking = [name for name in wanted if name not in found]
        if lacking:
            more = f" (and {len(lacking) - 1} more)" if len(lacking) > 1 else ""
            raise DataError(f"{lacking[0]}{more} has no {what} in {folder}: it must end in {', '.join(kinds)}")
    return [(image_of[name], mask_of[name]) for name in names]


def _stems(folder: Path, kinds: Sequence[str], what: str) -> dict[str, Path]:
    if not folder.is_dir():
        rule = "must be a folder, or a file when images and masks are both one file"
        raise DataError(f"{folder}: {what}s {rule}, got {'a file' if folder.exists() else 'nothing of that name'}")
    found: dict[str, Path] = {}
    for path in sorted(path for path in folder.iterdir() if path.suffix.lower() in kinds):
        if path.stem in found:
            raise DataError(f"{folder} must hold one {what} a name, got {found[path.stem].name} and {path.name}")
        found[path.stem] = path
    if not found:
        raise DataError(f"{folder} has no {what}s: it must hold files that end in {', '.join(kinds)}")
    return found


def picture(image: Path, mask: Path, labels: Labels) -> tuple[np.ndarray, np.ndarray]:
    """The colours, (H, W, 3) of bytes, and the classes, (H, W).

    image: RGB, or 8-bit grey, which becomes three equal colours. mask: 8-bit grey or palette, whose numbers are the
    classes, never its colours; or a MATLAB file of the Semantic Boundaries Dataset (GTcls.Segmentation).
    Raises DataError, naming the file, for other modes, unreadable files, different sizes and unknown classes.
    """
    colours = _opened(image, ("RGB", "L"), "an image must be RGB or 8-bit grey")
    values = _matlab(mask) if mask.suffix.lower() == ".mat" else _opened(mask, ("L", "P"), _RULE)
    if values.shape != colours.shape[:2]:
        sizes = [f"{shape[1]} x {shape[0]}" for shape in (colours.shape, values.shape)]
        raise DataError(f"{mask} must be of the size of its image {image}, {sizes[0]} pixels, got {sizes[1]}")
    colours = np.repeat(colours[..., None], 3, axis=2) if colours.ndim == 2 else colours
    return colours, labels.applied(values, mask)


def _opened(path: Path, modes: Sequence[str], rule: str) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(path) as opened:
            kind = _kind(opened)
            values = np.asarray(opened) if kind in modes else None
    except (*_BROKEN, SyntaxError, Image.DecompressionBombError) as error:  # Pillow calls broken headers SyntaxError
        raise DataError(f"{path} cannot be read, it may be cut short: {error}; put a whole file there") from None
    if values is None:
        raise DataError(f"{path}: {rule}, got mode {kind}")
    return values


def _kind(opened: ImageFile) -> str:
    """The mode; of grey with fewer than 8 bits the raw mode, such as L;2: Pillow stretches its numbers to 0 ... 255."""
    raw = opened.tile[0][3] if opened.mode == "L" and opened.tile else None
    name = raw[0] if isinstance(raw, tuple) and raw else raw
    return name if isinstance(name, str) and name.startswith("L;") else opened.mode


def _matlab(path: Path) -> np.ndarray:
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    rule = "must be a MATLAB file with GTcls.Segmentation, (H, W) of unsigned integers"
    try:
        values = np.asarray(loadmat(path)["GTcls"]["Segmentation"][0][0])
    except (*_BROKEN, MatReadError, KeyError, TypeError, IndexError, NotImplementedError) as error:
        raise DataError(f"{path} {rule}: {type(error).__name__} {error}") from None
    if values.ndim != 2 or values.dtype.kind != "u":
        raise DataError(f"{path} {rule}, got {values.shape} of {values.dtype}")
    return values
