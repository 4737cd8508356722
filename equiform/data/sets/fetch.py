"""Downloads: resumed where they stopped, checked, and under their name only when complete."""

import hashlib
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from equiform.errors import UserError
from equiform.runtime.files import explained

_CHUNK = 1 << 18
_TIMEOUT = 30.0


class RemoteFile(NamedTuple):
    """A file of a publisher.

    Attributes:
        name: What it is called here.
        url: The publisher's address.
        checksum: `md5:…` or `sha256:…`; None where the publisher gives none: then its own format's check must do.
        about: Size and content, human-readable.
    """

    name: str
    url: str
    checksum: str | None = None
    about: str = ""


def download(remote: RemoteFile, folder: Path, progress: Callable[[int, int], None] | None = None) -> Path:
    """Download a file, or resume the download; an existing file is only checked.

    Args:
        remote: What to get.
        folder: Where it goes.
        progress: Progress callback `(done, total)`, in bytes done.

    Raises:
        UserError: There is no network, the server refuses, the disk is full, or the checksum is another one.
    """
    target = folder / remote.name
    if target.is_file():
        verify(target, remote.checksum)
        return target
    part = folder / f"{remote.name}.part"
    with explained(f"cannot write {target}", "free some space or fix the permissions"):
        folder.mkdir(parents=True, exist_ok=True)
        done = part.stat().st_size if part.exists() else 0
    _receive(remote, part, done, progress)
    try:
        verify(part, remote.checksum)
    except UserError:
        part.unlink(missing_ok=True)  # Resuming it would never make it right.
        raise
    os.replace(part, target)
    return target


def verify(path: Path, checksum: str | None) -> None:
    """Compare a file with its checksum.

    Raises:
        UserError: It is another one; the message says which file, what was expected and what was found.
    """
    if checksum is None:
        return
    kind, _, expected = checksum.partition(":")
    digest = hashlib.new(kind, usedforsecurity=False)
    with explained(f"cannot read {path}", "check its permissions"), open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    if digest.hexdigest() != expected:
        raise UserError(
            f"{path} is damaged or another file: its {kind} is {digest.hexdigest()}, published is {expected}; remove it and "
            "fetch it again"
        )


def _receive(remote: RemoteFile, part: Path, done: int, progress: Callable[[int, int], None] | None) -> None:
    request = urllib.request.Request(remote.url, headers={"User-Agent": "equiform"})
    if done:
        request.add_header("Range", f"bytes={done}-")
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:
            resumed = response.status == http.client.PARTIAL_CONTENT
            done = done if resumed else 0
            length = response.headers.get("Content-Length")
            total = done + int(length) if length else 0
            with explained(f"cannot write {part}", "free some space"), open(part, "ab" if resumed else "wb") as file:
                while chunk := _read(response, remote):
                    file.write(chunk)
                    done += len(chunk)
                    if progress is not None:
                        progress(done, total)
    except urllib.error.HTTPError as error:
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and done:
            return  # All of it is here already; the checksum decides.
        raise UserError(f"{remote.url}: the server answers {error.code} {error.reason}; {_advice(remote)}") from error
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", error)
        raise UserError(f"cannot reach {remote.url} ({reason}); is this machine offline? {_advice(remote)}") from error
    if total and done != total:
        raise UserError(f"{remote.url}: the connection broke after {done} of {total} bytes; run the command again to resume")


def _read(response: http.client.HTTPResponse, remote: RemoteFile) -> bytes:
    try:
        return response.read(_CHUNK)
    except (http.client.IncompleteRead, TimeoutError, ConnectionError) as error:
        raise UserError(f"{remote.url}: the connection broke ({error}); run the command again to resume") from error


def _advice(remote: RemoteFile) -> str:
    return f"get {remote.name} elsewhere and name its folder with --from FOLDER or EQUIFORM_DATA"
