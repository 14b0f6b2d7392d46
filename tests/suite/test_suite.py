"""The marks are seen to, and errors that no test raises are found."""

from pathlib import Path

import pytest

from qvit.errors import DataError
from suite import raised

pytestmark = pytest.mark.trains  # the tests of these tests are noticed, too

TRAINS = """
    import pytest
    import qvit.training.loop as loop

    def train():
        with pytest.raises(TypeError, match="missing"):
            loop.train_epoch()
"""


def ended(pytester: pytest.Pytester, text: str, *options: str) -> tuple[int, str]:
    """Run tests in this process; return the exit code and all that was told."""
    pytester.makeini("[pytest]\nmarkers =\n  slow\n  trains\n  processes\n")
    pytester.makepyfile(text)
    done = pytester.runpytest_inprocess("-p", "suite.marks", "-p", "no:cacheprovider", *options)
    return int(done.ret), done.stdout.str() + done.stderr.str()


def test_training_has_to_be_said(pytester: pytest.Pytester) -> None:
    code, told = ended(pytester, f"{TRAINS}\n    def test_it():\n        train()\n")
    assert code == 1
    assert "Mark this test as what it is: @pytest.mark.trains." in told
    code, told = ended(pytester, f"{TRAINS}\n    @pytest.mark.trains\n    def test_it():\n        train()\n")
    assert (code, "Mark this" in told) == (0, False)


@pytest.mark.processes
def test_processes_have_to_be_said(pytester: pytest.Pytester) -> None:
    start = "import subprocess, sys\n\ndef test_it():\n    subprocess.run([sys.executable, '-c', ''])\n"
    code, told = ended(pytester, start)
    assert code == 1
    assert "@pytest.mark.processes" in told


def test_a_fixture_counts_for_all_that_use_it(pytester: pytest.Pytester) -> None:
    code, told = ended(
        pytester,
        f"""{TRAINS}
    @pytest.fixture(scope="module")
    def model():
        train()

    @pytest.mark.trains
    def test_first(model):
        pass

    def test_second(model):
        pass

    def test_without():
        pass
    """,
    )
    assert code == 1
    assert told.count("ERROR at teardown") == 1
    assert "ERROR at teardown of test_second" in told


def test_slow_tests_say_why_and_are_named(pytester: pytest.Pytester) -> None:
    test = "import pytest\n\n@pytest.mark.slow{}\ndef test_it():\n    pass\n"
    code, told = ended(pytester, test.format(""))
    assert code == pytest.ExitCode.USAGE_ERROR
    assert "say why it is slow" in told
    code, told = ended(pytester, test.format("('a compiler runs')"))
    assert code == 0
    assert "test_slow_tests_say_why_and_are_named.py::test_it  a compiler runs" in told


def test_errors_are_known_by_their_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "errors.py").write_text(
        "class QvitError(Exception):\n    pass\n\n\nclass DataError(QvitError):\n    pass\n"
    )
    (tmp_path / "data.py").write_text(
        "def a():\n    raise DataError(\n        'no'\n    )\n\n\ndef b():\n    return DataError()\n"
    )
    monkeypatch.setattr(raised, "SOURCE", tmp_path)
    raised.places.cache_clear()
    data = tmp_path / "data.py"
    assert raised.places() == ((data, 2), (data, 8))
    names = {"DataError": DataError}
    exec(compile(data.read_text(), str(data), "exec"), names)
    with pytest.raises(DataError, match=r"^no$"):
        names["a"]()
    assert raised.missing() == [(data, 8)]
    raised.places.cache_clear()
