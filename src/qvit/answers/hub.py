"""A trained run shared through a Hugging Face hub: pushed in one commit, opened by its name, `hf://owner/name`."""

import json
import logging
import sys
import textwrap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qvit import __version__
from qvit.answers import card as cards
from qvit.answers.evidence import ARRAYS, RECORD, load
from qvit.documents import one_line
from qvit.errors import ConfigError, QvitError, RunError
from qvit.files import shown
from qvit.training.folder import Run
from qvit.training.places import located, with_places

if TYPE_CHECKING:
    from huggingface_hub import HfApi, ModelInfo

SCHEME = "hf://"
RUN = ("config.json", "result.json", "model.safetensors")
FILES = (*RUN, RECORD, ARRAYS)  # all that is downloaded; what is pushed has the card, too
MOST = 2 << 30  # bytes of these files
PATIENCE = 10.0  # seconds that a hub may take for its first answer
_ADVICE = {
    401: "Log in with `hf auth login`, or set HF_TOKEN. Check the name, too: private ones may seem missing.",
    403: "Its owner must allow that to your token, or choose another repository.",
    404: "Check the name and the revision, and whether your token may see them.",
}


class HubWarning(UserWarning):
    """A hub that cannot be reached, and what is used in its place."""


@dataclass(frozen=True)
class Pushed:
    """What a push has done: the name to load the run by, its web address, the commit, who sees it, and its files."""

    name: str
    address: str
    commit: str
    private: bool | None
    files: tuple[str, ...]

    @property
    def calibrated(self) -> bool:
        """Whether what calibrates answers was pushed, too."""
        return RECORD in self.files


def push(
    run: Run, repo: str, *, public: bool = False, revision: str | None = None, message: str | None = None
) -> Pushed:
    """Put a finished run into a model repository, `owner/name` or a `name` of one's own, in one commit.

    It gets the card, config.json without the places of the user's data, result.json, the weights, and what calibrates
    answers if the folder keeps that of these weights. A new repository is private unless `public`; one that is there
    keeps its visibility. `revision` is a branch, made if need be. Raises ConfigError for a name that cannot be one,
    RunError for a run that is not finished or damaged, before anything is contacted, and for what the hub refuses.
    """
    _check(repo)
    files = _files(run)
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, get_token

    with _connected(SCHEME + repo) as hub:
        if get_token() is None:
            raise RunError("A push needs a token, and none was found. Log in with `hf auth login`, or set HF_TOKEN.")
        info = _repository(hub, repo, revision, public=public)
        if info.private is False and not public:
            raise RunError(
                f"{info.id} is public: everyone would see what is pushed, with predictions and labels of validation "
                "images if there are any. Push with --public, or to another repository."
            )
        at = "" if revision is None else f"@{revision}"
        files[cards.NAME] = cards.card(run, place=f"{SCHEME}{info.id}{at}").encode()
        there = {file.rfilename for file in info.siblings or ()}
        done = hub.create_commit(
            info.id,
            [
                *(CommitOperationAdd(name, content) for name, content in sorted(files.items())),
                # What calibrates other weights, of an earlier push.
                *(CommitOperationDelete(name) for name in FILES if name in there and name not in files),
            ],
            commit_message=message or f"{run.config['model']}, by qvit {__version__}",
            revision=revision,
        )
        address = f"{hub.endpoint}/{info.id}" + ("" if revision is None else f"/tree/{revision}")
        return Pushed(f"{SCHEME}{info.id}{at}", address, done.oid, info.private, tuple(sorted(files)))


def folder_of(run: str | Path) -> Path:
    """Return a run's folder: a path as it is; of `hf://owner/name` or `hf://owner/name@revision`, where a copy is kept.

    Only the files of a run are downloaded, at most 2 GiB, into the cache of Hugging Face's library; of a hub that
    cannot be reached, the copy there is used. Raises ConfigError for a name that cannot be one, RunError for a
    repository that holds no run, and for what the hub refuses.
    """
    text = run.as_posix() if isinstance(run, Path) else run  # a Path has one slash instead of two
    if not text.startswith("hf:/"):
        return Path(run)
    name = text.removeprefix("hf:").lstrip("/")
    repo, _, revision = name.partition("@")
    _check(repo)
    with _connected(SCHEME + name) as hub:
        folder = _downloaded(hub, repo, revision or None, SCHEME + name)
    config = Run(folder).config
    if with_places(config, bare) != config:  # whose files would be looked for, and read, when it is first asked
        raise RunError(
            f"Expected a run that `qvit push` made, but config.json of {SCHEME}{name} says where data lay. "
            "If you trust it, download it by hand and name its folder."
        )
    return folder


def bare(place: str) -> str:
    """Return what others are told of a place: its last name, as if it lay in the run's folder."""
    name = Path(place).name
    return f"./{name if name.strip('.') else 'data'}"


def _files(run: Run) -> dict[str, bytes]:
    """Return what is pushed but for the card, which says where to; raises RunError for a run that cannot be asked."""
    cards.card(run)
    run.load_model()
    names = RUN if load(run) is None else FILES
    files = {name: (run.folder / name).read_bytes() for name in names}  # all of which could just be read
    config = with_places(run.config, lambda place: bare(str(located(place, run.folder))))
    return files | {"config.json": (json.dumps(config, indent=2) + "\n").encode()}


def _repository(hub: "HfApi", repo: str, revision: str | None, *, public: bool) -> "ModelInfo":
    """Return what is known of a repository, after making it, and its branch, if they were not there."""
    from huggingface_hub.errors import RepositoryNotFoundError

    if "/" not in repo:
        repo = f"{hub.whoami()['name']}/{repo}"
    try:
        hub.model_info(repo, timeout=PATIENCE)
    except RepositoryNotFoundError:
        hub.create_repo(repo, private=not public, exist_ok=True)
    if revision is not None:
        hub.create_branch(repo, branch=revision, exist_ok=True)
    return hub.model_info(repo, revision=revision, timeout=PATIENCE)


def _downloaded(hub: "HfApi", repo: str, revision: str | None, name: str) -> Path:
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    wanted = [*FILES]
    try:
        info = hub.model_info(repo, revision=revision, files_metadata=True, timeout=PATIENCE)
    except HfHubHTTPError:
        raise
    except Exception as error:  # the hub was not reached
        with suppress(LocalEntryNotFoundError):
            kept = hub.snapshot_download(repo, revision=revision, allow_patterns=wanted, local_files_only=True)
            if not isinstance(error, OfflineModeIsEnabled):
                warnings.warn(
                    f"{hub.endpoint} cannot be reached: the copy of {name} is used.", HubWarning, stacklevel=2
                )
            return Path(kept)
        raise
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or () if file.rfilename in FILES}
    missing = [file for file in RUN if file not in sizes]
    if missing:
        raise RunError(
            f"{name} is not a run of qvit: {missing[0]} is missing. Name a repository that `qvit push` made."
        )
    if sum(sizes.values()) > MOST:
        raise RunError(
            f"Expected at most {MOST:,} bytes in the files of {name}, found {sum(sizes.values()):,}. If you trust it, "
            "download it by hand and name its folder."
        )
    # One file after the other: threads of the library close each other's connection when one is lost.
    folder = Path(hub.snapshot_download(repo, revision=revision, allow_patterns=wanted, max_workers=1))
    if folder.name != info.sha:  # whose sizes were not looked at
        raise RunError(f"{name} was changed while it was downloaded. Try again.")
    return folder


def _check(repo: str) -> None:
    """Raise ConfigError unless a repository can have this name, and the library is there."""
    try:
        from huggingface_hub.utils import validate_repo_id
    except ImportError as error:
        raise ConfigError("Hubs need huggingface_hub, which is not installed: pip install 'qvit[hub]'.") from error
    try:
        validate_repo_id(repo)
    except ValueError as error:
        raise ConfigError(f"Expected a repository owner/name, got '{shown(repo)}'. {one_line(error)}.") from error


@contextmanager
def _connected(name: str) -> Iterator["HfApi"]:
    """Yield a client of the hub that prints nothing but progress on a terminal; raises RunError for what goes wrong."""
    from huggingface_hub import HfApi
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    hub = HfApi(library_name="qvit", library_version=__version__)
    logger = logging.getLogger("huggingface_hub")
    level, hide = logger.level, not (sys.stderr.isatty() or are_progress_bars_disabled())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="huggingface_hub|httpx")
        logger.setLevel(logging.ERROR)
        if hide:
            disable_progress_bars()
        try:
            yield hub
        except (QvitError, MemoryError):
            raise
        except Exception as error:  # the library has many, and those of two others
            raise RunError(_told(error, name, hub.endpoint)) from error
        finally:
            logger.setLevel(level)
            if hide:
                enable_progress_bars()


def _told(error: Exception, name: str, endpoint: str) -> str:
    if isinstance(error, RuntimeError) and isinstance(error.__cause__, Exception):  # of a thread that sends a file
        error = error.__cause__
    answer = getattr(error, "response", None)
    if answer is not None:
        said = textwrap.shorten(str(getattr(error, "server_message", None) or answer.reason_phrase), 200)
        advice = _ADVICE.get(answer.status_code, "Try again later.")
        return f"{name}: {endpoint} answered {answer.status_code} ({said.rstrip('.')}). {advice}"
    if isinstance(error, OSError) and error.strerror:
        return (
            f"Cannot keep a copy of {name}: {error.strerror}. Free some space, or choose another folder with HF_HOME."
        )
    said = textwrap.shorten(f"{type(error).__name__}: {error}", 200).rstrip(".")
    return f"{name}: {endpoint} cannot be reached, or is no hub ({said}). Check the connection and HF_ENDPOINT."
