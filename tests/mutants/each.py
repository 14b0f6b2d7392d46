"""For each test function a mutant that it fails on; one that fails on none may be unable to fail."""

from collections import Counter
from collections.abc import Iterator
from functools import cache
from itertools import islice
from random import Random

from mutants.covered import Covered, Tests
from mutants.places import Mutant, Places
from mutants.trial import Try

CASES = 20  # of a function, the quickest ones

Line = tuple[str, int]  # of a file


def function_of(test: str) -> str:
    """Return a test's function, the same for all its parameters."""
    return test.partition("[")[0]


class Each:
    """One mutant after the other for each test function, until one makes it fail or `tries` did not.

    They are drawn by chance from the lines that the function runs, those rather that few others run.
    """

    def __init__(self, covered: Covered, tries: int, seed: int) -> None:
        self.covered, self.seed = covered, seed
        self.broken: dict[str, str] = {}  # functions, by the mutant that each fails on
        self._lines: dict[str, set[Line]] = {function_of(test): set() for test in covered.costs}
        self._times: Counter[Line] = Counter()
        for path in sorted(str(path.relative_to(covered.tree)) for path in (covered.tree / "src").rglob("*.py")):
            if path not in covered.compiled:
                self._read(path)
        self._most = tries

    def _read(self, path: str) -> None:
        for line, runs in self.covered.lines(path).items():
            functions = {function_of(test) for test, elsewhere in runs if test and not elsewhere}
            place = path, line
            self._times[place] = len(functions)
            for function in functions & self._lines.keys():
                self._lines[function].add(place)

    def _drawn(self, function: str) -> Iterator[Mutant]:
        random = Random(f"{self.seed} {function}")
        waiting = []
        for path in sorted({path for path, _ in self._lines[function]}):
            for number in range(len(self._places(path))):
                lines, called = self._places(path).where(number)
                times = [self._times[path, line] for line in lines if (path, line) in self._lines[function]]
                if called and times:
                    waiting.append((random.random() ** min(times), path, number))
        waiting.sort(reverse=True)  # as if drawn with weights: Efraimidis and Spirakis 2006
        made = (self._places(path).mutant(number, random) for _, path, number in waiting)
        yield from islice(filter(None, made), self._most)

    @cache  # noqa: B019 - one object of this class is made
    def _places(self, path: str) -> Places:
        return Places(path, (self.covered.tree / path).read_text())

    def tries(self) -> Iterator[Try]:
        """Yield a try for each function that is not broken yet, another for each that is still not, and so on."""
        left = {function: self._drawn(function) for function in self._lines}
        while left:
            for function, mutants in list(left.items()):
                mutant = None if function in self.broken else next(mutants, None)
                if mutant is None:
                    del left[function]
                    continue
                here = [test for test in self.covered.tests(mutant).here if function_of(test) == function]
                yield Try(mutant, Tests(sorted(here, key=self.covered.costs.__getitem__)[:CASES], []), function)

    def report(self) -> Iterator[str]:
        """Return the functions that no mutant broke, as lines."""
        unbroken = [function for function in self._lines if function not in self.broken]
        for title, runs in (
            ("Not broken by any mutant tried:", True),
            ("Run none of the code in their own process:", False),
        ):
            yield from ("", title, *(f"  {one}" for one in unbroken if bool(self._lines[one]) is runs))
        yield from ("", f"{len(self.broken)} of {len(self._lines)} test functions fail on a mutant")
