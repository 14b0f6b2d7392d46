"""What a study gives to its runs by itself, no options of theirs may set."""

import pytest
import yaml

from qvit.errors import ConfigError
from qvit.study import values
from study.made import parse

FULL = {
    "title": "One", "description": "what", "datasets": "phantom", "seeds": 1, "options": {"epochs": 3},
    "models": {"kind": "qvit"}, "teachers": {"t": [{"arch": "vit_4q1h"}]},
    "regimes": {"scratch": None, "kd": {"teacher": "t"}},
    "overrides": [{"where": {"seed": 0}, "set": {"lr": 0.25}}],
}  # fmt: skip


@pytest.mark.parametrize("key", values.GIVEN)
def test_what_a_study_gives_no_options_set(key: str) -> None:
    for place, said in (
        ("options", {"options": {key: 1}}),
        ("a model's options", {"models": {"kind": "qvit", "options": {key: 1}}}),
        ("teacher t", {"teachers": {"t": [{"arch": "vit_4q1h", key: 1}]}}),
        ("regime kd", {"regimes": {"kd": {"teacher": "t", key: 1}}}),
        ("set", {"overrides": [{"where": {"seed": 0}, "set": {key: 1}}]}),
    ):
        with pytest.raises(ConfigError) as caught:
            parse(yaml.safe_dump(FULL | said))
        assert str(caught.value) == (
            f"Study study: {place} cannot set '{key}': the study's datasets, models, seeds and regimes do."
        )
