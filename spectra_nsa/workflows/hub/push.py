"""The upload of a model folder to the Hub."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spectra_nsa.core.errors import SpectraError, UsageError

CARD = "README.md"
_LEFT_OUT = ("checkpoints", "optimizer.pt", "scheduler.pt", "rng_state.pth", "running.pt", "trainer_state.json")


@dataclass(frozen=True)
class PushFile:
    """A file to upload: its name in the repository, where it lies, and its size in bytes."""

    name: str
    path: Path
    size: int


def files_to_push(folder: Path) -> list[PushFile]:
    """Returns the files of a model, without its card, hidden files, and what only training needs.

    Raises:
        SpectraError: a link leads out of the folder, or a file is pickled.
    """
    found = []
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if not path.is_file() or any(part.startswith(".") or part in _LEFT_OUT for part in parts) or parts == (CARD,):
            continue
        if not path.resolve().is_relative_to(folder.resolve()):
            raise SpectraError(f"{path} is a link that leads out of the folder. Copy the file, or remove the link.")
        weights = path.suffix == ".bin" and path.with_suffix(".xml").is_file()  # of OpenVINO, plain numbers
        if path.suffix in (".pkl", ".pickle", ".bin", ".pth") and not weights:
            raise SpectraError(f"{path} may be pickled, which readers of the model should not open. Remove it.")
        found.append(PushFile("/".join(parts), path, path.stat().st_size))
    return found


def check_repo(repo: str) -> None:
    """Raises `UsageError` unless a name is ``owner/name`` as the Hub accepts it."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        if repo.count("/") != 1:
            raise HFValidationError("write owner/name")
        validate_repo_id(repo)
    except HFValidationError as error:
        raise UsageError(f"{repo!r} is no name of a repository: {error}") from error


def push(
    repo: str, files: Sequence[PushFile], card: str, *, public: bool = False, message: str = "Upload the model"
) -> str:
    """Creates a repository if there is none, and uploads a model and its card in one commit.

    Args:
        repo: ``"owner/name"``.
        files: see `files_to_push`.
        card: its text.
        public: whether a new repository is public; one that exists stays as it is.
        message: of the commit.

    Returns:
        the address of the commit.

    Raises:
        SpectraError: nobody is logged in, the Hub refuses, or it cannot be reached.
    """
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

    operations: list[Any] = [CommitOperationAdd(CARD, card.encode())]
    operations += [CommitOperationAdd(file.name, str(file.path)) for file in files]
    api = HfApi(library_name="spectra-nsa")
    try:
        api.create_repo(repo, private=not public, exist_ok=True)
        return str(api.create_commit(repo, operations, commit_message=message).commit_url)
    except LocalTokenNotFoundError as error:
        raise SpectraError("nobody is logged in to the Hub. Run `hf auth login`, or set HF_TOKEN.") from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        remedy = {
            401: " Run `hf auth login`, or set HF_TOKEN.",
            403: " The token needs the right to write to this repository.",
        }.get(status, "")
        raise SpectraError(f"the Hub refused {repo} ({status}).{remedy}") from error
    except (HTTPError, OfflineModeIsEnabled, OSError) as error:
        raise SpectraError(f"the Hub cannot be reached: {error}. Nothing was published.") from error
