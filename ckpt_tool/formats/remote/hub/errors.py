"""What huggingface_hub raises, in words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ckpt_tool.errors import CkptError, InputError
from ckpt_tool.formats.remote.access import option

_TOKEN = "`hf auth login` keeps a token, or HF_TOKEN has one"

_NO_HOST = ("name resolution", "name or service not known", "nodename nor servname")


@contextmanager
def in_words(address: str) -> Iterator[None]:
    """Turns what huggingface_hub raises into an InputError that says it."""
    try:
        yield
    except CkptError:
        raise
    except Exception as error:
        found = in_plain_words(error, address)
        if found is None:
            raise
        raise found from None


def in_plain_words(error: Exception, address: str) -> InputError | None:
    """The error that says it; None for one that is not of the hub, nor of the way to it."""
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return InputError(
            address,
            "is gated: its owner has conditions",
            f"accept its conditions on huggingface.co; {_TOKEN}",
        )
    if isinstance(error, errors.RevisionNotFoundError):
        hint = "a branch whose name has slashes is written with %2F: @feature%2Fnew"
        return InputError(address, "its repository has no such revision", hint)
    if isinstance(error, errors.RepositoryNotFoundError):
        return InputError(address, "there is no such repository, or it is private", _TOKEN)
    if isinstance(error, errors.EntryNotFoundError):
        return InputError(address, "its repository has no such file")
    if isinstance(error, errors.OfflineModeIsEnabled):
        return InputError(address, "is not in the cache, and huggingface_hub is offline")
    if isinstance(error, errors.HFValidationError):
        return InputError(address, f"names no repository: {str(error)[:200]}")
    if isinstance(error, errors.HfHubHTTPError):
        return _status(error, address)
    if type(error).__name__ == "UnsupportedProtocol":
        return InputError(address, "the hub leads to what is not a web address")
    if type(error).__name__ == "JSONDecodeError":
        return InputError(
            address, "the hub's answer is not JSON, but a page perhaps", "HF_ENDPOINT names the hub"
        )
    return _unreached(error, address)


def _status(error: Exception, address: str) -> InputError:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status == 401:
        return InputError(address, "asks for a token (401)", _TOKEN)
    if status == 403:
        return InputError(address, "may not be fetched with this token (403)", _TOKEN)
    if status == 429:
        return InputError(
            address, "the hub has had too many requests (429)", "wait, and run it again"
        )
    hint = "try it later" if isinstance(status, int) and status >= 500 else None
    return InputError(address, f"the hub refuses it ({status})", hint)


def _unreached(error: Exception, address: str) -> InputError | None:
    """The error of a connection: of the HTTP library that huggingface_hub is built on, whichever
    it is.
    """
    package = type(error).__module__.partition(".")[0]
    if not (
        package in ("httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3")
        or isinstance(error, ConnectionError | TimeoutError)
    ):
        return _of_the_disk(error, address) if isinstance(error, OSError) else None
    if "Timeout" in type(error).__name__ or isinstance(error, TimeoutError):
        return InputError(address, "the hub has not answered in time", "try it later")
    text = str(error).strip().partition("\n")[0][:200].lower() or type(error).__name__
    hint = f"{option('offline')} uses what is in the cache"
    if any(one in text for one in _NO_HOST):
        return InputError(
            address,
            "the hub's host (huggingface.co, or HF_ENDPOINT) can't be found, "
            "or there is no network",
            hint,
        )
    return InputError(address, f"the hub can't be reached: {text}", hint)


def _of_the_disk(error: OSError, address: str) -> InputError:
    """The error of the disk that its cache is on, or of a download that came out wrong."""
    text = (error.strerror or str(error)).strip().partition("\n")[0][:200].lower()
    return InputError(
        address, f"can't be downloaded: {text}", "HF_HOME names another place for the cache"
    )
