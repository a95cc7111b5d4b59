"""An image as a graph of superpixels, by the recipe of the Long Range Graph Benchmark's PascalVOC-SP."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

EXTRA = 50
"""How many superpixels more than wanted the first query asks for: SLIC gives fewer than it is asked for."""

FEATURES = 14


@dataclass(frozen=True)
class Recipe:
    """segments: the most superpixels of an image. compactness: the weight of place against colour in SLIC.

    The defaults are those of PascalVOC-SP. Raises ValueError for segments below 1 and compactness not positive.
    """

    segments: int = 500
    compactness: float = 30.0

    def __post_init__(self):
        if self.segments < 1:
            raise ValueError(f"segments must be at least 1, got {self.segments}")
        if not (math.isfinite(self.compactness) and self.compactness > 0):
            raise ValueError(f"compactness must be positive, got {self.compactness}")


@dataclass(frozen=True, eq=False)
class ImageGraph:
    """x: (N, 14) float32. y: (N,), values of the mask. edges: (2, E), each pair once. edge_x: (E, 2) float32."""

    x: np.ndarray
    y: np.ndarray
    edges: np.ndarray
    edge_x: np.ndarray


def image_graph(image: np.ndarray, mask: np.ndarray, recipe: Recipe | None = None) -> ImageGraph:
    """The region adjacency graph of an image           (Dwivedi et al., Long Range Graph Benchmark, 2022, appendix A)

    image: (H, W, 3) of bytes. mask: (H, W) of class numbers.
    A node is a SLIC superpixel. Its 14 features: mean, standard deviation, maximum and minimum of red, green and blue
    in [0, 1] (R, G, B each), then row and column of its centroid in pixels. Its class is that of the mask at the
    centroid, rounded half to even. A pixel whose 3 x 3 neighbourhood reaches into other superpixels joins its own with
    the lowest-numbered of them, if lower, and the highest-numbered, if higher; superpixels joined at least once share
    an edge, whose features are the mean Sobel magnitude of the grey image over these joins, and how many they are.

    An image of one superpixel gives one node without edges. Raises ValueError for wrong shapes, ImportError, naming
    the extra, without scikit-image.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise ValueError(f"image must be (H, W, 3) of bytes, got {image.shape} of {image.dtype}")
    if mask.shape != image.shape[:2]:
        raise ValueError(f"mask must be {image.shape[:2]}, one class a pixel of image, got {mask.shape}")
    labels = superpixels(image, recipe or Recipe())
    x = _features(image, labels)
    row, column = np.rint(x[:, 12:]).astype(np.int64).T
    edges, edge_x = _boundaries(image, labels)
    return ImageGraph(x, mask[row, column].astype(np.int64), edges, edge_x)


def superpixels(image: np.ndarray, recipe: Recipe) -> np.ndarray:
    """The superpixel of each pixel, (H, W) of numbers 0 ... n - 1 with n <= recipe.segments.

    SLIC is queried for segments + 50, then for one fewer at a time until it gives no more than wanted. It sees the
    number only through the grid of its first centres, so that queries of the same grid are run once.
    """
    slic, regular_grid = _scikit_image()
    pixels, last, labels = _unit(image), None, np.zeros(image.shape[:2], dtype=np.int64)
    for query in range(recipe.segments + EXTRA, 0, -1):
        grid = regular_grid((1, *image.shape[:2]), query)
        if grid == last:
            continue
        labels, last = slic(pixels, n_segments=query, compactness=recipe.compactness, start_label=0), grid
        if labels.max() < recipe.segments:
            break
    return labels


def _scikit_image():
    """Its slic and regular_grid."""
    try:
        from skimage.segmentation import slic
        from skimage.util import regular_grid
    except ImportError:
        raise ImportError('superpixels need scikit-image: pip install "settlepoint[data]"') from None
    return slic, regular_grid


def _unit(image: np.ndarray) -> np.ndarray:
    """Colours in [0, 1]; in float32, as the benchmark has it: in float64 SLIC puts single pixels elsewhere."""
    return (image / 255.0).astype(np.float32)


def _features(image: np.ndarray, labels: np.ndarray) -> np.ndarray:
    from scipy import ndimage

    colours, ids = _unit(image).astype(np.float64), np.arange(labels.max() + 1)
    measures = (ndimage.mean, ndimage.standard_deviation, ndimage.maximum, ndimage.minimum)
    columns = [measure(colours[..., channel], labels, ids) for measure in measures for channel in range(3)]
    centroid = [ndimage.mean(place, labels, ids) for place in np.indices(labels.shape)]
    return np.stack(columns + centroid, 1).astype(np.float32)


def _boundaries(image: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    from skimage.color import rgb2gray
    from skimage.filters import sobel
    from skimage.graph import rag_boundary

    if not labels.any():  # rag_boundary refuses a single region
        return np.zeros((2, 0), dtype=np.int64), np.zeros((0, 2), dtype=np.float32)
    found = rag_boundary(labels, sobel(rgb2gray(image))).edges(data=True)
    edges = np.array([(low, high) for low, high, _ in found], dtype=np.int64).T
    return edges, np.array([(data["weight"], data["count"]) for *_, data in found], dtype=np.float32)
