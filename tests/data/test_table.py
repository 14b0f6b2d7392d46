"""Tables of pictures: which columns mean what, and what is refused."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from data.picture_folders import table
from qvit.data.table import list_table
from qvit.errors import ConfigError, DataError


def listed(tmp_path: Path, header: str, rows: Sequence[str], **options: Any) -> Any:
    return list_table(table(tmp_path / "t.csv", header, rows), **options)


def refusal(tmp_path: Path, header: str, rows: Sequence[str], **options: Any) -> str:
    with pytest.raises((DataError, ConfigError)) as caught:
        listed(tmp_path, header, rows, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(str(tmp_path / "t.csv"), "TABLE")


def test_a_row_names_a_picture_and_its_class(tmp_path: Path) -> None:
    found = listed(tmp_path, "path,label", ["x.png,tumour", "sub/y.png,cyst", "z.png,tumour"])
    assert (found.folder, found.files) == (tmp_path, ("x.png", "sub/y.png", "z.png")), "in the order of the rows"
    assert found.classes == ("cyst", "tumour")
    assert found.labels.tolist() == [[1], [0], [1]]
    assert (found.sides, found.groups) == (None, None)


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_separators_and_encodings(tmp_path: Path, separator: str, encoding: str) -> None:
    quoted = "," if separator == "\t" else separator  # no name may hold a tab
    rows = [f'"a{quoted}b.png"{separator}gutartig', f"ü.png{separator}bösartig"]
    path = table(tmp_path / "t.csv", f"File Path{separator}Diagnosis".replace(" ", "_"), rows, encoding=encoding)
    found = list_table(path)
    assert found.files == (f"a{quoted}b.png", "ü.png")
    assert found.classes == ("bösartig", "gutartig")


def test_other_columns_are_named_or_known(tmp_path: Path) -> None:
    header, rows = "patient,image,Split,sex,view", ["p1,a.png,Train,m,ap", "p2,b.png,test,f,pa", "p1,c.png,valid,m,pa"]
    found = listed(tmp_path, header, rows, label="sex", group_by="patient")
    assert found.sides == ("train", "test", "val")
    assert found.groups == ("p1", "p2", "p1")
    assert found.labels.tolist() == [[1], [0], [1]]
    assert listed(tmp_path, header, rows, label="view", group_by="([a-z])[.]png").groups == ("a", "b", "c")
    assert refusal(tmp_path, header, rows) == (
        "TABLE: expected one column of labels, found sex, view. Say which to learn: --label sex (in Python label=…), "
        "or several of 0 and 1 with commas between."
    )
    assert refusal(tmp_path, header, rows, label="sax") == (
        "TABLE has no column 'sax' of labels. Did you mean 'sex'? It has the columns patient, image, Split, sex, view."
    )
    assert refusal(tmp_path, header, rows, label="sex", group_by="patients") == (
        "TABLE has no column 'patients' to group by. Did you mean 'patient'? It has the columns patient, image, Split, "
        "sex, view."
    )
    assert refusal(tmp_path, header, rows, label="image") == (
        "The column 'image' of TABLE cannot be the label: it has another meaning."
    )
    assert listed(tmp_path, header, rows, label="sex").labels.tolist() == [[1], [0], [1]]


def test_the_only_other_column_is_the_label(tmp_path: Path) -> None:
    assert listed(tmp_path, "img,kind", ["a.png,x", "b.png,y"]).classes == ("x", "y")
    both = listed(tmp_path, "path,other,class", ["a.png,1,x", "b.png,2,y"])
    assert both.classes == ("x", "y"), "a known name comes before one that is left"


@pytest.mark.parametrize("name", ["patient", "Patient ID", "subject_id", "StudyUID", "PatientID", "ids"])
def test_who_it_is_was_not_meant_as_the_class(tmp_path: Path, name: str) -> None:
    rows = ["cyst/a.png,p1", "tumour/b.png,p2"]
    assert listed(tmp_path, f"path,{name}", rows).classes == ("cyst", "tumour"), "the folders"
    assert listed(tmp_path, f"path,{name}", rows, label=name).classes == ("p1", "p2"), "unless it is said"
    assert listed(tmp_path, f"path,{name},x,y", [f"{row},1,0" for row in rows], label="*").classes == ("x", "y")


@pytest.mark.parametrize("name", ["width", "idea", "namely", "valid"])
def test_other_words_with_these_letters_are_labels(tmp_path: Path, name: str) -> None:
    assert listed(tmp_path, f"path,{name}", ["a,x", "b,y"]).classes == ("x", "y")


def test_names_of_classes_without_numbers(tmp_path: Path) -> None:
    rows = ["a.png,x", "b.png,y"]
    assert listed(tmp_path, "path,class_name", rows).classes == ("x", "y")
    assert listed(tmp_path, "path,class_name", rows, label="class_name").classes == ("x", "y")
    numbers = listed(tmp_path, "path,class_name", ["a,7", "b,5"])
    assert (numbers.classes, numbers.labels.tolist()) == (("5", "7"), [[1], [0]])


def test_a_header_may_hold_commas(tmp_path: Path) -> None:
    found = listed(tmp_path, 'path,"Age, years",b', ["a.png,1,0", "b.png,2,1"], label="Age, years")
    assert found.classes == ("1", "2")


def test_the_line_of_excel_that_names_the_separator(tmp_path: Path) -> None:
    found = listed(tmp_path, "sep=;", ["path;label", "a.png;x,1", "b.png;y"])
    assert found.classes == ("x,1", "y")
    assert "one row per line, found unexpected end of data in line 3" in refusal(tmp_path, "sep=;", ["path;y", 'a;"'])


def test_lines_end_where_spreadsheets_end_them(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes('path,label\r\na.png,"one\u2028line"\rb.png,"one\nmore"\nc.png,x\n'.encode())
    with pytest.raises(DataError, match="names of classes on one line"):
        list_table(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_bytes(b"path,label\r\na.png,y\rb.png,z\nc.png,x\n")
    assert list_table(tmp_path / "t.csv").classes == ("x", "y", "z")


def test_without_labels_the_folder_is_the_class(tmp_path: Path) -> None:
    found = listed(tmp_path, "path,split", ["cyst/a.png,train", "tumour/b.png,train", "in/cyst/c.png,test"])
    assert found.classes == ("cyst", "tumour")
    assert found.labels.tolist() == [[0], [1], [0]]
    assert "expected a class in each folder of the picture, found '' in line 3" in refusal(
        tmp_path, "path", ["cyst/a.png", "b.png"]
    )


def test_numbers_stay_numbers(tmp_path: Path) -> None:
    assert listed(tmp_path, "path,label", ["a,2", "b,0", "c,1", "d,10"]).classes == ("0", "1", "2", "10"), "gaps: names"
    assert listed(tmp_path, "path,label", ["a,2", "b,0", "c,1"]).labels.tolist() == [[2], [0], [1]]
    named = listed(tmp_path, "path,label,class_name", ["a,1,benign", "b,0,malignant"])
    assert (named.classes, named.labels.tolist()) == (("malignant", "benign"), [[1], [0]])
    assert refusal(tmp_path, "path,label,class_name", ["a,1,benign", "b,0,malignant", "c,1,other"]) == (
        "TABLE: expected one name for class 1 in 'class_name', found 'benign' and 'other' (line 4). Correct one of "
        "them."
    )
    from_one = listed(tmp_path, "path,label,class_name", ["a,1.0,x", "b,3.0,y", "c,3,y"])
    assert (from_one.classes, from_one.labels.tolist()) == (("x", "y"), [[0], [1], [1]])
    for rows, found in ((["a,1,x", "b,2,x"], "'x' for 1 and 2"), (["a,0,x", "b,1,"], "'' for 1")):
        assert refusal(tmp_path, "path,label,class_name", rows) == (
            f"TABLE: expected a name for each class in 'class_name', found {found}. Correct one of them."
        )


def test_numerals_that_differ_are_different_classes(tmp_path: Path) -> None:
    long = ["a,0000000001", "b,0000000011", "c,0000000012"]
    assert listed(tmp_path, "path,label", long).classes == ("0000000001", "0000000011", "0000000012")
    assert listed(tmp_path, "path,label", ["a,00", "b,0", "c,1"]).classes == ("0", "00", "1")
    assert "found 5000 characters in '9999" in refusal(tmp_path, "path,label", [f"a,{'9' * 5000}", "b,1"])


def test_several_columns_are_several_labels(tmp_path: Path) -> None:
    header, rows = "path,edema,mass,split,age", ["a,1,0,train,7", "b,0.0,1,test,8", "c,1.0,1,train,9"]
    found = listed(tmp_path, header, rows, label="mass, edema")
    assert (found.classes, found.labels.tolist()) == (("mass", "edema"), [[0, 1], [1, 0], [1, 1]])
    assert found.multi_label
    starred = listed(tmp_path, "path,b,a,split", ["x,1,0,train", "y,0,1,test"], label="*")
    assert starred.classes == ("b", "a"), "in the order of the columns"
    assert refusal(tmp_path, header, rows, label="*") == (
        "TABLE: expected 0 or 1 in the column 'age', found '7' in line 2. Several columns of labels say 1 where the "
        "picture has the label, else 0."
    )


@pytest.mark.parametrize(
    ("header", "rows", "told"),
    [
        ("label,where", ["x,a.png"], "a column path, file, filename, file_name or image, found the columns"),
        ("path,label", [], "a header and rows, found 1 line(s). Name the columns in the first line."),
        ("path,label", ["a.png,x", "b.png"], "2 cells in each line, found 1 in line 3. Quote cells"),
        ("path,label,label", ["a,x,y"], "columns with different names, found two called 'label'. Rename one."),
        ("path,label", ["a.png,x", ",y"], "a path in each line, found none in line 3. Fill it in, or drop the line."),
        ("path,label", ["a.png,x", "b,y", "./a.png,y"], "each picture once, found ./a.png in lines 2 and 4. Drop one"),
        ("path,label", ["a.png,x", "b.png,"], "a class in each column 'label', found '' in line 3. Fill it in"),
        ("path,label", ["a.png,x", "b.png,N/A"], "a class in each column 'label', found 'N/A' in line 3."),
        ("path,label", ["a.png,x", "b.png,x"], "at least two classes, found only 'x'."),
        ("path,label,split", ["a,x,train", "b,y,tost"], "train, val or test in the column 'split', found 'tost'"),
        ("path,label,split", ["a,x,train", "b,y,val"], "rows with train and test in the column 'split', found none"),
        ("path,label", ['a.png,"x'], "a table, one row per line, found unexpected end of data in line 2. Save"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_table_is_told(tmp_path: Path, header: str, rows: list[str], told: str) -> None:
    assert refusal(tmp_path, header, rows).startswith(f"TABLE: expected {told}")


def test_a_group_is_named_in_every_line(tmp_path: Path) -> None:
    assert refusal(tmp_path, "path,label,patient", ["a,x,1", "b,y, "], group_by="patient") == (
        "TABLE: expected a group in each line of the column 'patient', found none in line 3. Fill it in, or drop the "
        "line."
    )


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("path,label\na,Größe\n".encode("latin-1"), "text in UTF-8, found another encoding in line 2. Save it"),
        (b"path,label\na\0,x\n", "a table of text, found zero bytes. Save it as CSV (UTF-8)."),
        (b"\x89PNG\r\n\x1a\n\0\0", "text in UTF-8, found another encoding in line 1."),
        (b"", "a header and rows, found 0 line(s)."),
    ],
)  # fmt: skip
def test_files_that_are_no_tables(tmp_path: Path, content: bytes, told: str) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(DataError) as caught:
        list_table(tmp_path / "t.csv")
    assert str(caught.value).startswith(f"{tmp_path / 't.csv'}: expected {told}")


def test_a_table_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected a table of pictures \(CSV\), found nothing there\. Check the path"):
        list_table(tmp_path / "t.csv")


def test_paths_of_another_system_are_understood(tmp_path: Path) -> None:
    assert listed(tmp_path, "path,label", [r"sub\a.png,x", "b.png,y"]).files == ("sub/a.png", "b.png")
