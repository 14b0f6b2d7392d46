"""Check the shapes and types of every annotation while the tests run; an int is a float, as for mypy."""

from jaxtyping import install_import_hook

install_import_hook(
    ["qvit.quantum", "qvit.models"], "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
)
