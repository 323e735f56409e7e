"""Asking the hub once, briefly, so that what is missing is said within seconds."""

from __future__ import annotations

from typing import Literal

from pruners.errors import DataError, ModelError, PrunetuneError

TIMEOUT = 10.0
"""Seconds to wait for the hub's answer; loading itself would retry for half a minute."""


def check_access(name: str, kind: Literal["dataset", "model"], instead: str) -> str:
    """Check that the hub lets this user read a repository; nothing is downloaded.

    Args:
        name: Name on the hub.
        kind: What it is.
        instead: What to do without the hub, for messages.

    Returns:
        Hash of its newest commit; an empty text in offline mode, where nothing is asked.

    Raises:
        DataError: The data set cannot be read; the message says why and what to do.
        ModelError: The same for a model.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    if constants.HF_HUB_OFFLINE:
        return ""
    error_class = DataError if kind == "dataset" else ModelError
    what = f"the {'data set' if kind == 'dataset' else 'model'} {name}"
    api = HfApi()
    ask = api.dataset_info if kind == "dataset" else api.model_info
    try:
        information = ask(name, timeout=TIMEOUT)
        if information.gated:
            api.auth_check(name, repo_type=kind)
    except GatedRepoError as error:
        raise _gated(error_class, what, name, kind) from error
    except RepositoryNotFoundError as error:
        raise error_class(
            f"{what} is not on the hub, or only for those who are logged in; check the name, or "
            f"log in with `hf auth login`. {instead}"
        ) from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        if status in (401, 403):
            raise _gated(error_class, what, name, kind) from error
        raise error_class(
            f"the hub refuses {what} ({error}); try again later. {instead}"
        ) from error
    except Exception as error:  # the HTTP library below, and its errors, differ by version
        raise error_class(
            f"{what} is on the hub, which cannot be reached ({error}); connect to the network. "
            f"What was downloaded before is found with HF_HUB_OFFLINE=1. {instead}"
        ) from error
    return information.sha or ""


def _gated(
    error_class: type[PrunetuneError], what: str, name: str, kind: Literal["dataset", "model"]
) -> PrunetuneError:
    page = f"https://huggingface.co/{'datasets/' if kind == 'dataset' else ''}{name}"
    return error_class(
        f"{what} is gated, and the hub refuses access (401 or 403); accept its conditions at "
        f"{page}, then log in with `hf auth login`"
    )
