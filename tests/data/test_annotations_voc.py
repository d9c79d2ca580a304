"""Labels of Pascal VOC: XML of boxes, splits in ImageSets, and what is wrong with them."""

from pathlib import Path

import pytest
from PIL import Image

from n2n_edge.data.labels.reading import read_annotations
from n2n_edge.errors import InputError
from n2n_edge.metrics.notices import codes_of

WIDTH, HEIGHT = 40, 20


def thing(name="dog", box=(1, 1, 40, 20), more=""):
    edges = "".join(f"<{edge}>{at}</{edge}>" for edge, at in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    return f"<object><name>{name}</name>{more}<bndbox>{edges}</bndbox></object>"


def document(*things, width=WIDTH, height=HEIGHT, filename="other.jpg"):
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation><filename>{filename}</filename>{size}{''.join(things)}</annotation>"


def make(
    root: Path, documents: dict[str, str], sets: dict[str, str] | None = None, names=("Annotations", "JPEGImages")
):
    for folder in names:
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name, text in documents.items():
        (root / names[0] / f"{name}.xml").write_text(text)
        Image.new("RGB", (WIDTH, HEIGHT)).save(root / names[1] / f"{name}.png")
    for name, text in (sets or {}).items():
        (root / "ImageSets" / "Main").mkdir(parents=True, exist_ok=True)
        (root / "ImageSets" / "Main" / f"{name}.txt").write_text(text)
    return root


def test_boxes_and_splits(tmp_path):
    documents = {
        "a": document(thing(), thing("cat", (11, 6, 20, 10), "<difficult>1</difficult>")),
        "b": document(),
        "c": document(thing()),
    }
    annotated = read_annotations(make(tmp_path, documents, {"train": "a\nb", "test": "c\n", "trainval": "a\nb"}))
    first, second, _ = annotated.labels
    assert annotated.names == ("cat", "dog")
    assert first.boxes.tolist() == [[0, 0, 40, 20], [10, 5, 20, 10]]
    assert first.classes.tolist() == [1, 0]
    assert first.crowd.tolist() == [False, True]
    assert len(second) == 0
    assert annotated.splits == ("train", "train", "test")
    assert codes_of(annotated.notices) == ("class-order",)


@pytest.mark.parametrize("names", [("annotations", "images"), (".", ".")])
def test_other_folders(tmp_path, names):
    annotated = read_annotations(make(tmp_path, {"a": document(thing())}, names=names))
    assert annotated.labels[0].boxes.tolist() == [[0, 0, 40, 20]]


def test_the_folder_of_annotations_itself(tmp_path):
    make(tmp_path, {"a": document(thing())})
    assert len(read_annotations(tmp_path / "Annotations")) == 1


def test_an_image_may_be_named_within(tmp_path):
    make(tmp_path, {"a": document(thing(), filename="b.png")})
    (tmp_path / "JPEGImages" / "a.png").rename(tmp_path / "JPEGImages" / "b.png")
    assert read_annotations(tmp_path).labels[0].classes.tolist() == [0]


def test_pixels_that_count_from_0(tmp_path):
    annotated = read_annotations(make(tmp_path, {"a": document(thing(box=(0, 1, 10, 10)))}))
    assert annotated.labels[0].boxes.tolist() == [[0, 1, 10, 10]]
    assert "pixels-from-0" in codes_of(annotated.notices)


def test_an_image_without_annotations_is_unlabelled(tmp_path):
    make(tmp_path, {"a": document(thing())})
    Image.new("RGB", (4, 4)).save(tmp_path / "JPEGImages" / "z.png")
    assert read_annotations(tmp_path).labels[1] is None


def test_classes_in_the_teachers_order(tmp_path):
    make(tmp_path, {"a": document(thing("dog"), thing("cat"))})
    assert read_annotations(tmp_path, classes=["dog", "cow", "cat"]).labels[0].classes.tolist() == [0, 2]
    with pytest.raises(InputError, match=r"a.xml, object 2: class 'cat' isn't among those of classes"):
        read_annotations(tmp_path, classes=["dog", "cow"])
    assert read_annotations(tmp_path, classes=2).labels[0].classes.tolist() == [1, 0]
    for classes in (1, 20):
        with pytest.raises(InputError, match=rf"2 classes are named there, the teacher has {classes}: which is which"):
            read_annotations(tmp_path, classes=classes)


BOMB = '<!DOCTYPE a [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><annotation>&b;</annotation>'
READS = '<!DOCTYPE a [<!ENTITY a SYSTEM "file:///etc/passwd">]><annotation>&a;</annotation>'


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (BOMB, "has a document type, which may define entities"),
        (READS, "has a document type, which may define entities"),
        ("<annotation>&nothing;</annotation>", "can't be read as XML (undefined entity"),
        ("<annotation>", "can't be read as XML"),
        ("", "can't be read as XML"),
        ("<a>" * 100 + "</a>" * 100, "nested more than 50 deep"),
        ("<labels/>", "isn't Pascal VOC's, it holds <labels>"),
        (document("<object><name>x</name></object>"), "object 1: has no bndbox"),
        (document("<object><bndbox/></object>"), "object 1: has no name"),
        (document("<object><name>x</name><bndbox><xmin>1</xmin></bndbox></object>"), "object 1: has no ymin"),
        (document(thing(), thing(box=(1, 1, "x", 2))), "object 2: 'x' is no number"),
        (document(thing(box=(1, 1, "nan", 2))), "object 1: nan where a finite number is needed"),
        (document(thing(box=(1, 1, 400, 20))), "object 1: the box 0, 0 to 400, 20 lies far outside its image of 40x20"),
        (document(thing(box=(30, 1, 10, 20))), "object 1: a box of width -19"),
        (document(thing(), width=50), "the size is 50x20 pixels, but the image has 40x20"),
        (document(thing(), width=20, height=40), "40x20 (it is turned by its EXIF orientation)"),
    ],
)
def test_files_that_are_wrong(tmp_path, text, why):
    make(tmp_path, {"a": text})
    with pytest.raises(InputError) as error:
        read_annotations(tmp_path)
    assert why in str(error.value)
    assert str(error.value).startswith(f"{tmp_path}/Annotations/a.xml")
    assert "\n" not in str(error.value)


def test_annotations_without_images(tmp_path):
    make(tmp_path, {"a": document(thing()), "b": document()})
    (tmp_path / "JPEGImages" / "b.png").unlink()
    with pytest.raises(InputError, match=r"1 of 2 XML files have no image in '.*JPEGImages', the first: '.*b.xml'"):
        read_annotations(tmp_path)


def test_splits_of_images_that_are_not_there(tmp_path):
    make(tmp_path, {"a": document(thing())}, {"train": "a\nzebra"})
    with pytest.raises(InputError, match=r"train.txt, line 2: there is no image 'zebra'"):
        read_annotations(tmp_path)
