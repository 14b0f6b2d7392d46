"""Where things lie is written into no study."""

from pathlib import Path

import pytest

from qvit.data.registry import is_path
from qvit.study.reading import parse_study
from qvit.study.store import FILE, Store
from study.stores import COST, fill, read

pytestmark = pytest.mark.usefixtures("options_are_not_the_point")


def test_no_place_is_written(tmp_path: Path) -> None:
    text = (
        "datasets: [sub/retinamnist.npz, /else/where/own, breastmnist]\nmodels: vit_4q1h\nteachers: {t: [{}]}\n"
        "regimes: {kd: {teacher: t, transfer_set: pool/more.npz}}"
    )
    (tmp_path / "out").mkdir()
    with Store.open(tmp_path / "out") as store:
        fill(store, list(parse_study(text, name="s", folder=tmp_path).jobs))
        store.set_costs([(str(tmp_path / "sub" / "retinamnist.npz"), "a", COST)])
        assert list(store.costs()) == [("retinamnist.npz", "a")]
    jobs = read(tmp_path / "out")
    assert list(dict.fromkeys(job.dataset for job in jobs)) == ["retinamnist.npz", "./own", "breastmnist"]
    assert [is_path(job.dataset) for job in jobs[::2]] == [True, True, False]
    assert {job.options["transfer_set"] for job in jobs if job.distilled} == {"more.npz"}
    content = (tmp_path / "out" / FILE).read_bytes()
    assert str(tmp_path).encode() not in content
    assert b"/else" not in content
