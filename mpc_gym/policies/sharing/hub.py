"""The files of a saved policy on the Hugging Face Hub: these are exchanged, and no others.

`huggingface_hub.ModelHubMixin` is no base of our policies: it deletes the config in a folder before
it saves there, hands what a repository's config holds to the constructor, falls back to a pickle
where there are no safetensors (for PyTorch), and would make the library a requirement of the
package. Its functions that download and upload are used instead.
"""

import contextlib
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from mpc_gym.checks import check_path, found
from mpc_gym.policies.sharing.policy_folder import (
    CARD_FILE,
    CONFIG_FILE,
    MAX_CONFIG_BYTES,
    MAX_TENSOR_BYTES,
    TENSOR_FILE,
)

REPOSITORY = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)
MAX_BYTES = {CONFIG_FILE: MAX_CONFIG_BYTES, TENSOR_FILE: MAX_TENSOR_BYTES}
"""The files that are downloaded, and how large each may be."""


def local_folder(folder: object) -> Path:
    """A folder on this computer, or where a repository of the Hub has been downloaded to.

    Args:
        folder: its path, or text of the form "user/name": the repository of that name, unless there
            is such a folder.

    Raises:
        ImportError: a repository is asked for, and huggingface_hub is not installed.
        TypeError: it is no path.
        ValueError: the path is impossible; the repository cannot be downloaded, or holds no policy
            of a size that can be loaded.
    """
    path = check_path("folder", folder)
    if isinstance(folder, str) and REPOSITORY.fullmatch(folder) and not path.exists():
        return _downloaded(folder)
    return path


def upload(folder: Path, repo_id: str, private: bool | None) -> str:
    """Make a repository where there is none, and put a policy in it, in one commit.

    Args:
        folder: which `save_pretrained` wrote.
        repo_id: "user/name".
        private: whether a new repository is; None: as is the user's default.

    Returns:
        The address of the commit.

    Raises:
        OSError: the Hub cannot be reached, or refuses.
    """
    api = library("push_to_hub").HfApi(library_name="mpc_gym")
    api.create_repo(repo_id, private=private, exist_ok=True)
    commit = api.upload_folder(
        repo_id=repo_id,
        folder_path=folder,
        allow_patterns=[CONFIG_FILE, TENSOR_FILE, CARD_FILE],
        commit_message="Save a policy of mpc_gym",
    )
    return str(commit.commit_url)


def check_repository(name: str, repo_id: object) -> None:
    """Refuse what is no repository's id.

    Raises:
        ValueError: it is none.
    """
    if not (isinstance(repo_id, str) and REPOSITORY.fullmatch(repo_id)):
        raise ValueError(
            f'{name} must be "user/name", of a repository of the Hugging Face Hub, got '
            f"{found(repo_id)}"
        )


def library(purpose: str) -> ModuleType:
    """The library huggingface_hub, which is an optional dependency.

    Raises:
        ImportError: it is not installed.
    """
    try:
        import huggingface_hub
    except ImportError as error:
        raise ImportError(f"{purpose} needs huggingface_hub: pip install 'mpc-gym[hub]'") from error
    return huggingface_hub


def _downloaded(repo_id: str) -> Path:
    hub = library(f"folder {repo_id!r} is not on this computer, and to download it from the Hub")
    download = partial(hub.snapshot_download, repo_id, allow_patterns=list(MAX_BYTES))
    reason: BaseException
    try:
        return Path(download(revision=_checked_revision(repo_id, download(dry_run=True))))
    except hub.errors.DryRunError as error:  # the Hub gives no answer
        reason = error.__cause__ or error
        with contextlib.suppress(OSError):
            return Path(download(local_files_only=True))  # as it was downloaded before
    except OSError as error:
        reason = error
    raise ValueError(
        "folder must be a folder on this computer or a repository of the Hugging Face Hub: there "
        f"is no folder {repo_id!r}, and the repository cannot be downloaded: {reason}"
    ) from reason


def _checked_revision(repo_id: str, files: Sequence[Any]) -> str:
    """The commit whose files these are, as `snapshot_download` would download them."""
    sizes = {file.filename: file.file_size for file in files}
    for name, limit in MAX_BYTES.items():
        if name not in sizes:
            raise ValueError(
                f"the repository {repo_id!r} holds no policy that save_pretrained wrote: it has no "
                f"{name}. Pickles, such as the files of Stable-Baselines3, are not downloaded"
            )
        if sizes[name] is None or sizes[name] > limit:
            raise ValueError(
                f"{name} of the repository {repo_id!r} must be at most {limit} bytes, got "
                f"{sizes[name]}"
            )
    return str(files[0].commit_hash)
