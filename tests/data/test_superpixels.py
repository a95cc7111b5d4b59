"""Images become the graphs of PascalVOC-SP's recipe; bad pictures are refused by name; files are whole or not there."""

from __future__ import annotations

import io
import os
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image
from skimage.color import rgb2gray
from skimage.filters import sobel
from skimage.segmentation import slic

import settlepoint.data.image_graphs as image_graphs
from settlepoint.data import (
    DataError,
    GraphSet,
    ImageGraph,
    Labels,
    Recipe,
    camvid,
    data_dir,
    image_graph,
    kept_in,
    pairs,
    standardised,
    superpixel_graphs,
    verified,
    write_graphs,
    write_image_graphs,
)
from settlepoint.data.graph_file import load_arrays
from settlepoint.data.pictures import picture
from settlepoint.data.superpixels import superpixels

SMALL = Recipe(segments=12)
needs_camvid = pytest.mark.skipif("SETTLEPOINT_DATA" not in os.environ, reason="needs the real files of CamVid-SP")


@pytest.fixture
def image(seed: int) -> np.ndarray:
    """24 x 36 pixels of four coloured patches and some noise."""
    rng = np.random.default_rng(seed)
    patches = np.kron(rng.integers(0, 256, (2, 2, 3)), np.ones((12, 18, 1)))
    return np.clip(patches + rng.normal(0, 8, patches.shape), 0, 255).astype(np.uint8)


@pytest.fixture
def mask() -> np.ndarray:
    """Classes 0 and 1 beside one another, void 9 below."""
    values = np.zeros((24, 36), dtype=np.uint8)
    values[:, 18:], values[20:] = 1, 9
    return values


@pytest.fixture
def folders(tmp_path: Path, image: np.ndarray, mask: np.ndarray) -> tuple[Path, Path]:
    """Two images, the second turned by half, and their masks."""
    for name, one in (("images", image), ("masks", mask)):
        (tmp_path / name).mkdir()
        Image.fromarray(one).save(tmp_path / name / "a.png")
        Image.fromarray(one[::-1]).save(tmp_path / name / "b.png")
    return tmp_path / "images", tmp_path / "masks"


@pytest.fixture
def written(tmp_path: Path, folders: tuple[Path, Path]) -> Path:
    """The file of these two images."""
    path = tmp_path / "graphs.npz"
    write_image_graphs(pairs(*folders), path, SMALL, Labels(classes=2, void=9))
    return path


def rewritten(path: Path, **changes: object) -> Path:
    """The file with other arrays; None takes one away."""
    arrays = {**load_arrays(path), **changes}
    target = path.with_name("other.npz")
    np.savez(target, **{name: value for name, value in arrays.items() if value is not None})  # type: ignore[arg-type]
    return target


@needs_camvid
def test_the_validation_graphs_of_camvid_are_made_again(tmp_path: Path) -> None:
    """The oracle: the six graphs published with their images."""
    files = {path.name: path for path in verified(data_dir(), "camvid-superpixels")}
    home = files["val.npz"].parent
    labels = Labels(classes=11, void=11)
    made = write_image_graphs(pairs(home / "images", home / "masks"), tmp_path / "val.npz", labels=labels)
    ours, theirs = load_arrays(made.path), load_arrays(files["val.npz"])
    nodes, edges = theirs["node_ptr"][6], theirs["edge_ptr"][6]
    assert (made.graphs, made.nodes, made.edges) == (6, nodes, edges)
    for name, part in (("y", np.s_[:nodes]), ("edge", np.s_[:, :edges]), ("node_ptr", np.s_[:7]), ("names", np.s_[:6])):
        np.testing.assert_array_equal(ours[name], theirs[name][part])
        assert ours[name].dtype == theirs[name].dtype
    np.testing.assert_allclose(ours["x"], theirs["x"][:nodes], rtol=0, atol=1e-5)
    np.testing.assert_allclose(ours["edge_attr"], theirs["edge_attr"][:edges], rtol=0, atol=1e-5)


def test_features_and_classes_are_those_of_the_pixels(image: np.ndarray) -> None:
    """The oracle: NumPy on the pixels of each superpixel; no two pixels of the mask are of one class."""
    mask = np.arange(24 * 36).reshape(24, 36)
    labels, graph = superpixels(image, SMALL), image_graph(image, mask, SMALL)
    assert graph.x.shape == (labels.max() + 1, 14)
    for node, x in enumerate(graph.x):
        pixels, places = image[labels == node] / 255, np.argwhere(labels == node).mean(0)
        wanted = np.concatenate([*(f(pixels, 0) for f in (np.mean, np.std, np.max, np.min)), places])
        np.testing.assert_allclose(x, wanted, atol=1e-5)  # float32, places up to 36
        row, column = np.rint(places).astype(int)
        assert graph.y[node] == mask[row, column]


def test_edges_are_the_joins_of_pixels(image: np.ndarray, mask: np.ndarray) -> None:
    """The oracle: a loop over the pixels and their neighbourhoods."""
    labels, magnitude = superpixels(image, SMALL), sobel(rgb2gray(image))
    joins: dict[tuple[int, int], list[float]] = {}
    for (row, column), own in np.ndenumerate(labels):
        around = labels[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
        for pair in ((int(around.min()), int(own)), (int(own), int(around.max()))):
            if pair[0] != pair[1]:
                joins.setdefault(pair, []).append(magnitude[row, column])
    graph = image_graph(image, mask, SMALL)
    found = {tuple(edge): x for edge, x in zip(graph.edges.T.tolist(), graph.edge_x, strict=True)}
    assert found.keys() == joins.keys()
    for edge, values in joins.items():
        np.testing.assert_allclose(found[edge], [np.mean(values), len(values)], rtol=1e-5)


@pytest.mark.parametrize("rows", [2, 24])
@pytest.mark.parametrize("segments", [1, 7, 12, 40, 900])
def test_equal_grids_are_queried_once_and_change_nothing(image: np.ndarray, segments: int, rows: int) -> None:
    """The oracle: SLIC for one segment fewer each time. In a strip of two rows only the columns of the grid change."""
    image = image[:rows]
    pixels = (image / 255.0).astype(np.float32)
    for query in range(segments + 50, 0, -1):
        slow = slic(pixels, n_segments=query, compactness=30.0, start_label=0)
        if slow.max() < segments:
            break
    found = superpixels(image, Recipe(segments))
    np.testing.assert_array_equal(found, slow)
    np.testing.assert_array_equal(np.unique(found), np.arange(found.max() + 1))
    assert found.max() < segments


@pytest.mark.parametrize(("shape", "recipe"), [((1, 1), Recipe()), ((5, 4), Recipe(1))])
def test_one_superpixel_is_a_node_without_edges(tmp_path: Path, shape: tuple[int, int], recipe: Recipe) -> None:
    graph = image_graph(np.full((*shape, 3), 51, dtype=np.uint8), np.full(shape, 2), recipe)
    assert graph.edges.shape == (2, 0)
    assert graph.edge_x.shape == (0, 2)
    np.testing.assert_allclose(graph.x[0, :6], [0.2, 0.2, 0.2, 0, 0, 0], atol=1e-7)  # 51 / 255, float32
    write_graphs(tmp_path / "one.npz", [graph], ["one"], 3)
    found = superpixel_graphs(tmp_path / "one.npz")
    assert (len(found), found.y.tolist(), found.edges.shape) == (1, [2], (2, 0))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Recipe(0), "segments must be at least 1, got 0"),
        (lambda: Recipe(compactness=0), "compactness must be positive, got 0"),
        (lambda: Recipe(compactness=float("nan")), "compactness must be positive, got nan"),
        (lambda: Labels(classes=0), "classes must be at least 1, got 0"),
        (lambda: Labels(void=-1), "void must be 0 or more"),
        (lambda: Labels(void_to=0), "void_to needs void"),
        (lambda: Labels(classes=3, void=255, void_to=3), "void_to must be a class, got 3 with 3 classes"),
        (lambda: Labels(void=5, void_to=5), "void_to must be a class, got 5"),
        (lambda: image_graph(np.zeros((2, 2, 4), np.uint8), np.zeros((2, 2))), r"image must be \(H, W, 3\) of bytes"),
        (lambda: image_graph(np.zeros((2, 2, 3)), np.zeros((2, 2))), "of bytes, got .* of float64"),
        (lambda: image_graph(np.zeros((0, 2, 3), np.uint8), np.zeros((0, 2))), "image must be"),
        (lambda: image_graph(np.zeros((2, 2, 3), np.uint8), np.zeros((2, 3))), r"mask must be \(2, 2\).*got \(2, 3\)"),
        (lambda: write_image_graphs([], Path("x.npz")), "found must hold pairs"),
    ],
)
def test_wrong_calls_say_the_rule(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_scikit_image_is_named_when_it_lacks(monkeypatch: pytest.MonkeyPatch, image: np.ndarray) -> None:
    monkeypatch.setitem(sys.modules, "skimage.segmentation", None)
    with pytest.raises(ImportError, match=r"settlepoint\[data\]"):
        superpixels(image, SMALL)


def test_a_palette_mask_gives_its_numbers_not_its_colours(tmp_path: Path, image: np.ndarray, mask: np.ndarray) -> None:
    Image.fromarray(image).save(tmp_path / "a.png")
    palette = Image.fromarray(mask, mode="L")
    palette.putpalette([200, 10, 30, 90, 250, 7] + [17] * 762)
    assert palette.mode == "P"
    palette.save(tmp_path / "p.png")
    np.testing.assert_array_equal(picture(tmp_path / "a.png", tmp_path / "p.png", Labels())[1], mask)


def test_a_grey_image_is_three_equal_colours(tmp_path: Path, mask: np.ndarray) -> None:
    for name in ("a.png", "m.png"):
        Image.fromarray(mask).save(tmp_path / name)
    colours, _ = picture(tmp_path / "a.png", tmp_path / "m.png", Labels())
    np.testing.assert_array_equal(colours, np.stack([mask] * 3, 2))


def test_a_matlab_mask(tmp_path: Path, image: np.ndarray, mask: np.ndarray) -> None:
    Image.fromarray(image).save(tmp_path / "a.png")
    truth = np.array([(mask,)], dtype=[("Segmentation", object)])
    scipy.io.savemat(tmp_path / "m.mat", {"GTcls": truth})
    np.testing.assert_array_equal(picture(tmp_path / "a.png", tmp_path / "m.mat", Labels())[1], mask)
    scipy.io.savemat(tmp_path / "n.mat", {"else": mask})
    with pytest.raises(DataError, match=r"n.mat must be a MATLAB file with GTcls.Segmentation, .*: KeyError"):
        picture(tmp_path / "a.png", tmp_path / "n.mat", Labels())
    half = np.array([(mask / 2,)], dtype=[("Segmentation", object)])
    scipy.io.savemat(tmp_path / "f.mat", {"GTcls": half})
    with pytest.raises(DataError, match=r"f.mat must be .* of unsigned integers, got \(24, 36\) of float64"):
        picture(tmp_path / "a.png", tmp_path / "f.mat", Labels())
    (tmp_path / "cut.mat").write_bytes((tmp_path / "m.mat").read_bytes()[:150])
    with pytest.raises(DataError, match=r"cut.mat must be a MATLAB file"):
        picture(tmp_path / "a.png", tmp_path / "cut.mat", Labels())


def test_void_can_become_a_class(tmp_path: Path, image: np.ndarray, mask: np.ndarray) -> None:
    Image.fromarray(image).save(tmp_path / "a.png")
    Image.fromarray(mask).save(tmp_path / "m.png")
    labels = Labels(classes=2, void=9, void_to=0)
    assert labels.unscored is None
    found = picture(tmp_path / "a.png", tmp_path / "m.png", labels)[1]
    np.testing.assert_array_equal(found, np.where(mask == 9, 0, mask))


def spoil(folders: tuple[Path, Path], what: str) -> None:
    images, masks = folders
    with Image.open(images / "a.png") as opened:
        rgb = opened.copy()
    match what:
        case "size":
            Image.new("L", (10, 24)).save(masks / "a.png")
        case "class":
            Image.new("L", (36, 24), 7).save(masks / "a.png")
        case "colours":
            rgb.save(masks / "a.png")
        case "alpha":
            rgb.convert("RGBA").save(images / "a.png")
        case "deep":
            Image.fromarray(np.zeros((24, 36), np.uint16)).save(masks / "a.png")
        case "two bits":
            Image.fromarray(np.ones((24, 36), np.uint8)).save(masks / "a.png", bits=2)
        case "cut image":
            (images / "a.png").write_bytes((images / "a.png").read_bytes()[:-600])
        case "cut mask":
            (masks / "a.png").write_bytes((masks / "a.png").read_bytes()[:40])
        case "text":
            (images / "a.png").write_text("not an image")
        case "no mask":
            (masks / "b.png").unlink()
        case "no image":
            (images / "a.png").unlink()
        case "two masks":
            Image.new("L", (36, 24)).save(masks / "a.bmp")
        case "empty":
            for path in images.iterdir():
                path.unlink()


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("size", r"masks/a.png must be of the size of its image .*images/a.png, 36 x 24 pixels, got 10 x 24"),
        ("class", r"masks/a.png: the classes of a mask must lie in \[0, 2\) or void, 9, got 7"),
        ("colours", r"masks/a.png: a mask must be 8-bit grey or palette, one number a pixel, got mode RGB"),
        ("alpha", r"images/a.png: an image must be RGB or 8-bit grey, got mode RGBA"),
        ("deep", r"masks/a.png: a mask must be 8-bit grey .* got mode I;16"),
        ("two bits", r"masks/a.png: a mask must be 8-bit grey .* got mode L;2"),
        ("cut image", r"images/a.png cannot be read, it may be cut short: .*; put a whole file there"),
        ("cut mask", r"masks/a.png cannot be read, it may be cut short"),
        ("text", r"images/a.png cannot be read"),
        ("no mask", r"b has no mask in .*masks: it must end in .png"),
        ("no image", r"a has no image in .*images"),
        ("two masks", r"masks must hold one mask a name, got a.bmp and a.png"),
        ("empty", r"images has no images: it must hold files that end in .png"),
    ],
)
def test_bad_pictures_are_named_with_the_rule(
    folders: tuple[Path, Path], tmp_path: Path, what: str, message: str
) -> None:
    spoil(folders, what)
    with pytest.raises(DataError, match=message):
        write_image_graphs(pairs(*folders), tmp_path / "x.npz", SMALL, Labels(classes=2, void=9))
    assert not (tmp_path / "x.npz").exists()


def test_pairs(folders: tuple[Path, Path], tmp_path: Path) -> None:
    images, masks = folders
    (images / "notes.txt").write_text("other files are no images")
    assert [image.name for image, _ in pairs(images, masks)] == ["a.png", "b.png"]
    assert pairs(images / "a.png", masks / "b.png") == [(images / "a.png", masks / "b.png")]
    (masks / "b.png").rename(masks / "b.tif")
    assert pairs(images, masks, ["b"]) == [(images / "b.png", masks / "b.tif")]
    with pytest.raises(DataError, match=r"c has no image in"):
        pairs(images, masks, ["a", "c"])
    with pytest.raises(
        DataError, match="must be a folder, or a file when images and masks are both one file, got a file"
    ):
        pairs(images / "a.png", masks)
    with pytest.raises(DataError, match="got nothing of that name"):
        pairs(tmp_path / "nowhere", masks)


def test_an_interrupted_call_goes_on(
    folders: tuple[Path, Path], written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again, labels, seen = tmp_path / "again.npz", Labels(classes=2, void=9), []

    def interrupt(what: str, done: int, of: int) -> None:
        seen.append((what, done, of))
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_image_graphs(pairs(*folders), again, SMALL, labels, interrupt)
    assert seen == [("a.png", 0, 2), ("b.png", 1, 2)]
    assert not again.exists()
    assert len(list(kept_in(again).glob("*.npz"))) == 1
    made = []
    monkeypatch.setattr(image_graphs, "_make", lambda *given, do=image_graphs._make: made.append(given) or do(*given))
    assert write_image_graphs(pairs(*folders), again, SMALL, labels).reused == 1
    assert [pair[0].name for _, pair, *_ in made] == ["b.png"]
    for name, array in load_arrays(written).items():
        np.testing.assert_array_equal(load_arrays(again)[name], array)
    assert not kept_in(again).exists()


def test_what_was_kept_for_another_recipe_or_image_is_not_taken(folders: tuple[Path, Path], tmp_path: Path) -> None:
    def stop(what: str, done: int, of: int) -> None:
        if done == 1:
            raise KeyboardInterrupt

    path = tmp_path / "x.npz"
    with pytest.raises(KeyboardInterrupt):
        write_image_graphs(pairs(*folders), path, SMALL, Labels(), stop)
    assert write_image_graphs(pairs(*folders), path, Recipe(5), Labels()).reused == 0
    assert not kept_in(path).exists()


def test_the_file_is_whole_or_not_there(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: io.BufferedWriter, **arrays: np.ndarray) -> None:
        file.write(b"PK")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(DataError, match=r"could not write .*No space left on device"):
        write_graphs(tmp_path / "x.npz", [image_graph(np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2)))], ["a"], 1)
    assert not list(tmp_path.glob("x.npz*"))


@pytest.mark.parametrize(("name", "message"), [("graphs.npz", "exists already"), ("graphs.pt", "must end in .npz")])
def test_other_files_are_not_touched(
    folders: tuple[Path, Path], tmp_path: Path, written: Path, name: str, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        write_image_graphs(pairs(*folders), tmp_path / name, SMALL)


def test_classes_are_counted_over_whole_masks(folders: tuple[Path, Path], tmp_path: Path) -> None:
    """Class 6 on one pixel, which is no centroid, is a class too; void is none."""
    values = np.array(Image.open(folders[1] / "a.png"))
    values[0, 0] = 6
    Image.fromarray(values).save(folders[1] / "a.png")
    made = write_image_graphs(pairs(*folders), tmp_path / "x.npz", SMALL, Labels(void=9))
    found = superpixel_graphs(made.path)
    assert (made.classes, found.classes, int(found.y.max())) == (7, 7, 1)
    assert made.unscored == int((found.y == -1).sum()) > 0


def test_a_file_becomes_a_set_of_graphs(written: Path, image: np.ndarray, mask: np.ndarray) -> None:
    found, graph = superpixel_graphs(written), image_graph(image, mask, SMALL)
    first = found.take([0])
    assert (len(found), found.classes, list(found.names)) == (2, 2, ["a.png", "b.png"])
    np.testing.assert_array_equal(first.x, graph.x)
    np.testing.assert_array_equal(first.y, np.where(graph.y == 9, -1, graph.y))
    np.testing.assert_array_equal(first.edges[:, ::2], graph.edges)
    assert torch.equal(found.edges[:, ::2], found.edges[:, 1::2].flip(0))  # both directions, side by side
    assert found.edge_x is not None
    assert torch.equal(found.edge_x[::2], found.edge_x[1::2])


def test_wide_numbers_are_kept(tmp_path: Path) -> None:
    wide = ImageGraph(
        np.zeros((40000, 1), np.float32), np.full(40000, 200), np.array([[0], [39999]]), np.ones((1, 2), np.float32)
    )
    write_graphs(tmp_path / "x.npz", [wide], ["x"], 201)
    arrays = load_arrays(tmp_path / "x.npz")
    assert (arrays["y"].dtype, arrays["edge"].dtype) == (np.int16, np.int32)
    assert superpixel_graphs(tmp_path / "x.npz").edges.tolist() == [[0, 39999], [39999, 0]]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 0.999])
def test_a_cut_file_says_what_to_do(written: Path, share: float) -> None:
    whole = written.read_bytes()
    written.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(DataError, match=r"graphs.npz is cut short or no npz .*write it again with settle data superp"):
        superpixel_graphs(written)


def test_an_array_alone_is_no_file_of_graphs(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros(3))
    with pytest.raises(DataError, match=r"x.npy is cut short or no npz of plain arrays"):
        superpixel_graphs(tmp_path / "x.npy")


def test_a_damaged_file_is_refused(written: Path) -> None:
    whole = bytearray(written.read_bytes())
    with zipfile.ZipFile(written) as file:
        start = file.getinfo("x.npy").header_offset
    whole[start + 200 : start + 230] = bytes(30)
    written.write_bytes(whole)
    with pytest.raises(DataError, match=r"graphs.npz is cut short or no npz"):
        superpixel_graphs(written)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": None}, "holds x, y, edge, .* but y is not there"),
        ({"x": np.zeros(3)}, r"x must be \(N,F\), got \(3,\)"),
        ({"x": np.full((24, 14), "a")}, "x must hold numbers, got <U1"),
        ({"names": np.array([1, 2])}, "names must hold text, got int64"),
        ({"edge": np.zeros((3, 4), np.int16)}, r"edge must be \(2,E\), got \(3, 4\)"),
        ({"y": np.zeros(24)}, "y must hold integers, got float64"),
        ({"node_ptr": np.array([0, 99, 24])}, "node_ptr must ascend from 0 to "),
        ({"node_ptr": np.array([0, 3])}, "node_ptr must ascend from 0 to .* in 2 steps, one a graph"),
        ({"edge_ptr": np.array([1, 2, 3])}, "edge_ptr must ascend from 0 to "),
        ({"names": np.array([object()], dtype=object)}, "no npz of plain arrays .*allow_pickle=False"),
        ({"classes": np.int64(1)}, r"y must lie in \[0, 1\), or be -1 for unscored, got 1"),
    ],
)
def test_arrays_that_do_not_fit_together_are_refused(written: Path, change: dict, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        superpixel_graphs(rewritten(written, **change))
    assert "other.npz" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "message"), [("edge", 99, "must join two of"), ("y", -3, "y must be 0 or more")]
)
def test_numbers_out_of_range_are_refused(written: Path, name: str, value: int, message: str) -> None:
    values = load_arrays(written)[name].copy()
    values.flat[1] = value
    with pytest.raises(DataError, match=message):
        superpixel_graphs(rewritten(written, **{name: values}))


def test_an_edge_may_not_reach_into_the_next_graph(tmp_path: Path) -> None:
    """Both ends: the joined numbers alone would be an edge of the second graph."""
    small, large = [
        ImageGraph(np.zeros((n, 1), np.float32), np.zeros(n, int), np.array([[0], [1]]), np.ones((1, 2), np.float32))
        for n in (2, 4)
    ]
    write_graphs(tmp_path / "x.npz", [small, large], ["small", "large"], 1)
    edge = load_arrays(tmp_path / "x.npz")["edge"].copy()
    edge[:, 0] = 2, 3
    with pytest.raises(DataError, match=r"edge 0 must join two of the 2 nodes of its graph, got \[2, 3\]"):
        superpixel_graphs(rewritten(tmp_path / "x.npz", edge=edge))


def test_nan_features_and_loops_are_refused(written: Path) -> None:
    arrays = load_arrays(written)
    x, edge = arrays["x"].copy(), arrays["edge"].copy()
    x[5, 3] = np.nan
    with pytest.raises(DataError, match="x must be finite, row 5 is not"):
        superpixel_graphs(rewritten(written, x=x))
    edge[:, 2] = 1
    with pytest.raises(DataError, match=r"edge 2 must join two of the .* got \[1, 1\]"):
        superpixel_graphs(rewritten(written, edge=edge))


def test_the_meaning_of_the_classes(written: Path) -> None:
    with pytest.raises(DataError, match="classes must be 2, as the file says, got 3"):
        superpixel_graphs(written, classes=3)
    silent = rewritten(written, classes=None, void=None)
    with pytest.raises(DataError, match="does not say how many classes there are: pass classes"):
        superpixel_graphs(silent)
    assert torch.equal(superpixel_graphs(silent, classes=2, void=9).y, superpixel_graphs(written).y)
    with pytest.raises(DataError, match="missing: write it with settle data superpixels"):
        superpixel_graphs("nowhere.npz")


@needs_camvid
def test_camvid_is_camvid() -> None:
    """367 / 101 / 233 images in the published split; every edge both ways."""
    found = {split: camvid(None, split) for split in ("train", "val", "test")}
    assert [len(graphs) for graphs in found.values()] == [367, 101, 233]
    assert {(graphs.classes, graphs.x.shape[1]) for graphs in found.values()} == {(11, 14)}
    val = found["val"]
    assert (len(val.x), val.edges.shape[1]) == (46533, 2 * 132188)
    assert set(val.y.unique().tolist()) <= set(range(-1, 11))
    assert not set(found["train"].names) & set(found["test"].names)


def test_camvid_names_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="split must be one of train, val, test, got 'dev'"):
        camvid(tmp_path, "dev")
    with pytest.raises(DataError, match=r"camvid_sp/val.npz is missing: put val.npz there \(SHA-256 8c66e77"):
        camvid(tmp_path, "val")
    (tmp_path / "camvid_sp").mkdir()
    (tmp_path / "camvid_sp/val.npz").write_bytes(b"half")
    with pytest.raises(DataError, match=r"camvid_sp/val.npz is corrupt"):
        camvid(tmp_path, "val")


def test_standardised_by_the_training_set_alone(written: Path) -> None:
    graphs = superpixel_graphs(written)
    train, other = standardised(graphs.take([0]), graphs.take([1]))
    raw = graphs.take([0]).x.double()
    torch.testing.assert_close(train.x.mean(0), torch.zeros(14), rtol=0, atol=1e-6)  # float32, values below 5
    torch.testing.assert_close(train.x.std(0, correction=0), torch.ones(14), rtol=0, atol=1e-6)
    wanted = (graphs.take([1]).x - raw.mean(0)) / raw.std(0, correction=0)
    torch.testing.assert_close(other.x, wanted.float())
    assert torch.equal(other.y, graphs.take([1]).y)


def test_constants_are_only_centred() -> None:
    def alone(x: torch.Tensor) -> GraphSet:
        zeros = torch.zeros(len(x), dtype=torch.int64)
        return GraphSet(x=x, y=zeros, edges=torch.zeros(2, 0, dtype=torch.int64), index=zeros, count=1, classes=1)

    train, other = standardised(alone(torch.tensor([[0.1, 0.0]] * 7)), alone(torch.tensor([[1.1, 2.0]])))
    torch.testing.assert_close(train.x, torch.zeros(7, 2))
    torch.testing.assert_close(other.x, torch.tensor([[1.0, 2.0]]))
    with pytest.raises(DataError, match="train must have nodes"):
        standardised(alone(torch.zeros(0, 2)))
    with pytest.raises(DataError, match="the 2 features of train, got 3"):
        standardised(alone(torch.ones(1, 2)), alone(torch.ones(1, 3)))
