"""Tables of numbers and of points, and what is wrong with them."""

from pathlib import Path

import pytest
from PIL import Image

from n2n_edge.data.labels.reading import read_annotations
from n2n_edge.errors import InputError
from n2n_edge.metrics.notices import codes_of

WIDTH, HEIGHT = 40, 20


def make(root: Path, text: str, folder: str = "images") -> Path:
    for name in ("a.jpg", "b.jpg"):
        (root / folder).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (WIDTH, HEIGHT)).save(root / folder / name)
    (root / "labels.csv").write_text(text)
    return root


def test_numbers_and_splits(tmp_path):
    annotated = read_annotations(make(tmp_path, "age,file,weight,split\n3,a.jpg,1.5,train\n4,b.jpg,-2e1,val\n"))
    assert annotated.names == ("age", "weight")
    assert [label.values.tolist() for label in annotated.labels] == [[3, 1.5], [4, -20]]
    assert annotated.splits == ("train", "validation")
    assert annotated.summary == "CSV of numbers: 1 training, 1 validation images; 2 numbers each"


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("header", ["l_eye_x,l_eye_y,r_eye_x,r_eye_y", "x_l_eye,y_l_eye,x_r_eye,y_r_eye"])
def test_points(tmp_path, delimiter, header):
    text = f"image,{header}\nimages/a.jpg,1,2,3,4\nimages/b.jpg,5,6,,\n".replace(",", delimiter)
    annotated = read_annotations(make(tmp_path, text) / "labels.csv")
    assert annotated.keypoint_names == ("l_eye", "r_eye")
    assert annotated.flip_index == (1, 0)
    assert annotated.labels[0].points.tolist() == [[1, 2, 2], [3, 4, 2]]
    assert annotated.labels[1].points.tolist() == [[5, 6, 2], [0, 0, 0]]


@pytest.mark.parametrize(("flags", "seen"), [((1, 0), (2, 0)), ((2, 1), (2, 1))])
def test_points_with_visibility(tmp_path, flags, seen):
    text = f"x0,y0,v0,file\n1,2,{flags[0]},a.jpg\n3,4,{flags[1]},b.jpg\n"
    points = [label.points[0].tolist() for label in read_annotations(make(tmp_path, text, ".")).labels]
    assert points[0] == [1, 2, seen[0]]
    assert points[1] == ([3, 4, 1] if seen[1] else [0, 0, 0])


def test_points_as_shares_of_the_image(tmp_path):
    annotated = read_annotations(make(tmp_path, "file,x0,y0\na.jpg,0.5,0.5\nb.jpg,1,0\n"))
    assert annotated.labels[0].points.tolist() == [[20, 10, 2]]
    assert codes_of(annotated.notices) == ("shares-of-image",)


def test_points_outside_are_told_of(tmp_path):
    annotated = read_annotations(make(tmp_path, "file,x0,y0\na.jpg,99,5\nb.jpg,3,4\n"))
    assert codes_of(annotated.notices) == ("points-outside",)


def test_numbers_that_only_look_like_points(tmp_path):
    for header in ("x,y", "x0,y1", "max,may_z"):
        assert read_annotations(make(tmp_path, f"file,{header}\na.jpg,1,2\nb.jpg,3,4\n")).names == tuple(
            header.split(",")
        )


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("file,n\na.jpg,1\nb.jpg,x\n", "line 3, column 'n': 'x' is no number"),
        ("file,n\na.jpg,1\nb.jpg,nan\n", "line 3, column 'n': nan where a finite number is needed"),
        ("file,n\na.jpg,1\nb.jpg,\n", "line 3, column 'n': '' is no number"),
        ("file,n\na.jpg,1\na.jpg,2\n", "line 3: 'a.jpg' stands in line 2, too"),
        ("file,n\na.jpg,1\nc.jpg,2\n", "1 of 2 images aren't in"),
        ("file,n\na.jpg,1\nb.jpg\n", "line 3: 1 fields, but the header has 2"),
        ("file,n,n\na.jpg,1,2\n", "the header names 'n' twice"),
        ("file,n\n", "holds 1 rows"),
        ("", "holds 0 rows"),
        ("a.jpg,1\nb.jpg,2\n", "its first line has no names of columns"),
        ("n,m\n1,2\n", "none of the columns 'n', 'm' holds image files"),
        ("file,other,n\na.jpg,a.jpg,1\n", "has several columns of image files, 'file', 'other'"),
        ("file,n\na.jpg,1\nb.jpg,2\nreadme,3\n", "line 4, column 'file': 'readme' is no image file"),
        ("file\na.jpg\n", "has no columns of numbers beside 'file'"),
        ("file,n,split\na.jpg,1,dev\n", "line 2: split 'dev'"),
        ("file,x0,y0,v0\na.jpg,1,2,7\n", "line 2, column 'v0': 7 is neither 0, 1 nor 2"),
        ("file,x0,y0\na.jpg,1,\n", "line 2, column 'y0': '' is no number"),
        ('file,n\n"a.jpg,1\n', "can't be read as CSV"),
    ],
)
def test_tables_that_are_wrong(tmp_path, text, why):
    with pytest.raises(InputError) as error:
        read_annotations(make(tmp_path, text))
    assert why in str(error.value)
    assert str(error.value).startswith(f"{tmp_path}/labels.csv")
    assert "\n" not in str(error.value)


def test_many_points_outside_are_refused(tmp_path):
    make(tmp_path, "file,x0,y0\n" + "".join(f"{index}.png,99,5\n" for index in range(11)))
    for index in range(11):
        Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "images" / f"{index}.png")
    with pytest.raises(InputError, match=r"11 of 11 points reach out of their images, the first: .*labels.csv, line 2"):
        read_annotations(tmp_path)
