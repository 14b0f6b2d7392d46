"""A trained model behind a page: the bytes of a picture in, what is said of it out, one after the other."""

import base64
import io
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, UInt8
from PIL import Image

from qvit.answers.card import TITLES
from qvit.answers.explaining import Case, explained
from qvit.answers.predictor import Predictor
from qvit.data.registry import DATASETS, is_path, name_of
from qvit.validate import require

FRAMES = 8  # of one file that are answered: a film of a scanner has hundreds
_DIGITS = 4  # of numbers that are only drawn


@dataclass(frozen=True)
class Limits:
    """What may be sent at once: `megabytes` of a file, `megapixels` of its picture."""

    megabytes: float = 20
    megapixels: float = 25

    def __post_init__(self) -> None:
        require(0 < self.megabytes <= 1000, "megabytes", "above 0 and at most 1000", self.megabytes)
        require(0 < self.megapixels <= 100, "megapixels", "above 0 and at most 100", self.megapixels)

    @property
    def bytes(self) -> int:
        """The most bytes of a file."""
        return int(self.megabytes * 10**6)

    @property
    def pixels(self) -> int:
        """The most pixels of a picture."""
        return int(self.megapixels * 10**6)


class Desk:
    """Answers about pictures that are sent as bytes. They stay in memory, and only until they are answered."""

    def __init__(self, predictor: Predictor, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._predictor = predictor
        self._needs = predictor.needs

    def about(self) -> dict[str, Any]:
        """Return what a page says of the model before anything is asked."""
        [member, *_] = self._predictor.members
        config, result, needs = member.run.config, member.run.result, self._needs
        info = None if is_path(config["dataset"]) else DATASETS.get(config["dataset"])
        ends = result.test.auc_interval
        return {
            "model": config["model"],
            "data": info.title if info else name_of(member.run.dataset),
            "task": needs.task,
            "classes": list(needs.classes),
            "size": needs.size,
            "channels": needs.channels,
            "parameters": result.parameters,
            "measured": {
                TITLES[name]: getattr(result.test, name) for name in ("auc", "acc", "sensitivity", "specificity")
            },
            "auc_interval": None if ends is None or None in ends else ends,
            "calibrated": self._predictor.calibration.ece is not None,
            "sets": self._predictor.options.sets,
            "notes": list(self._predictor.calibration.notes),
            "megabytes": self.limits.megabytes,
        }

    def answer(self, content: bytes, target: str | None = None) -> dict[str, Any]:
        """Return what is said of each image in a file, and maps of the class `target`, or of the likeliest.

        An image is shown as the model sees it. Raises DataError for what is no picture that the model can be asked
        about, for a picture of too many pixels, and for a class that the model does not know.
        """
        squares = self._needs.squares_in(io.BytesIO(content), most=self.limits.pixels)
        shown = np.stack(squares[:FRAMES])
        cases = explained(self._predictor, [""] * len(shown), shown, target)
        return {"frames": len(squares), "answers": [_told(case) for case in cases]}


def _told(case: Case) -> dict[str, Any]:
    told = asdict(case.prediction)
    del told["source"], told["error"]
    maps = {name: _rounded(values) for name, values in case.maps.shown.items()}
    return told | {"image": _as_png(case.image), "explained": case.target, "maps": maps}


def _as_png(square: UInt8[np.ndarray, "c s s"]) -> str:
    """Return an image as an address that holds it."""
    pixels = square.transpose(1, 2, 0)
    file = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _rounded(values: Float64[np.ndarray, "y x"]) -> list[list[float]]:
    """Return a map in parts of its largest value, which is all that a drawing shows."""
    most = float(np.abs(values).max()) or 1.0
    rounded: list[list[float]] = np.round(values / most, _DIGITS).tolist()
    return rounded
