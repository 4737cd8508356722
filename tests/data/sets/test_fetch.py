"""Downloads resume, are checked, and half of one is never taken for a whole; a set is found where it is."""

import hashlib
import tarfile
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from equiform.data.sets import catalogue, qm9
from equiform.data.sets.fetch import RemoteFile, download
from equiform.errors import UserError
from tests.data.published import write_md17, write_qm9

CONTENT = bytes(range(256)) * 4000
CHECKSUM = f"md5:{hashlib.md5(CONTENT).hexdigest()}"


class Handler(BaseHTTPRequestHandler):
    """Serves `CONTENT` with ranges; `/cut` breaks off in the middle, `/whole` ignores ranges."""

    ranges: list = []  # noqa: RUF012 - looked at by the tests

    def do_GET(self):
        if self.path == "/none":
            self.send_error(404)
            return
        asked = self.headers.get("Range")
        self.ranges.append(asked)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.path != "/whole" else 0
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        end = len(CONTENT) // 2 if self.path == "/cut" and not start else len(CONTENT)
        self.wfile.write(CONTENT[start:end])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        Handler.ranges.clear()
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_a_broken_download_goes_on_where_it_stopped(server, tmp_path):
    with pytest.raises(UserError, match=r"broke.*run the command again to resume"):
        download(RemoteFile("data", f"{server}/cut", CHECKSUM), tmp_path)
    assert not (tmp_path / "data").exists()
    part = (tmp_path / "data.part").stat().st_size
    assert 0 < part <= len(CONTENT) // 2
    seen = []
    path = download(RemoteFile("data", f"{server}/cut", CHECKSUM), tmp_path, lambda *done: seen.append(done))
    assert path.read_bytes() == CONTENT and Handler.ranges[-1] == f"bytes={part}-"
    assert seen[-1] == (len(CONTENT), len(CONTENT)) and not (tmp_path / "data.part").exists()


def test_a_server_without_ranges_is_asked_for_all(server, tmp_path):
    (tmp_path / "data.part").write_bytes(b"old")
    assert download(RemoteFile("data", f"{server}/whole", CHECKSUM), tmp_path).read_bytes() == CONTENT


def test_another_checksum_is_refused_and_the_file_removed(server, tmp_path):
    with pytest.raises(UserError, match=r"its md5 is .* published is 0000"):
        download(RemoteFile("data", f"{server}/x", "md5:0000"), tmp_path)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "data").write_bytes(b"damaged")
    with pytest.raises(UserError, match="damaged or another file"):
        download(RemoteFile("data", f"{server}/x", CHECKSUM), tmp_path)


def test_no_network_and_no_file_are_said_in_one_line(server, tmp_path):
    with pytest.raises(UserError, match="the server answers 404"):
        download(RemoteFile("data", f"{server}/none"), tmp_path)
    with pytest.raises(UserError, match=r"is this machine offline\? get data elsewhere and name its folder with --from"):
        download(RemoteFile("data", "http://127.0.0.1:9/x"), tmp_path)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(catalogue.ENVIRONMENT, raising=False)
    monkeypatch.setattr(catalogue, "user_cache_folder", lambda: tmp_path / "cache")
    return tmp_path


def test_a_set_is_found_by_folder_by_environment_and_in_the_cache(home, monkeypatch):
    write_md17(home / "data" / "rmd17" / "rmd17_ethanol.npz", 30, revised=True)
    with pytest.raises(UserError, match="md17-ethanol is not available: run 'equiform data fetch md17 ethanol'"):
        catalogue.open_store("md17", "ethanol")
    store = catalogue.open_store("md17", "ethanol", home / "data")
    assert len(store) == 30 and "original MD17 labels" in store.about["labels"]
    assert catalogue.open_store("md17", "ethanol").path == store.path  # the store alone will do
    monkeypatch.setenv(catalogue.ENVIRONMENT, str(home / "data"))
    assert catalogue.open_store("rmd17", "Ethanol").about["labels"].endswith("revised labels")
    write_md17(home / "data" / "md17_ethanol.npz", 40, revised=False)
    assert len(catalogue.open_store("md17", "ethanol")) == 40  # another source is another store


def test_unknown_names_get_suggestions(home):
    for name, part, message in [
        ("qm8", None, "did you mean 'qm9'"),
        ("md17", None, "md17 has several molecules; name one: aspirin"),
        ("md17", "aspirine", "did you mean 'aspirin'"),
        ("qm9", "x", "without parts such as 'x'"),
        ("oc20-is2re", "val_idd", "did you mean 'val_id'"),
    ]:
        with pytest.raises(UserError, match=message):
            catalogue.open_store(name, part)
    with pytest.raises(UserError, match="is not a folder"):
        catalogue.open_store("qm9", folder=home / "nowhere")


def test_archives_are_unpacked_by_name(home):
    write_md17(home / "made" / "rmd17_uracil.npz", 12, revised=True)
    target = catalogue.cache_folder() / "rmd17"
    target.mkdir(parents=True)
    with tarfile.open(target / "rmd17.tar.bz2", "w:bz2") as archive:  # As if it had been downloaded.
        archive.add(home / "made" / "rmd17_uracil.npz", "rmd17/npz_data/rmd17_uracil.npz")
        archive.add(home / "made" / "rmd17_uracil.npz", "rmd17/other/x.npz")
        archive.add(home / "made" / "rmd17_uracil.npz", "../escaped.npz")
    folder = catalogue.fetch("rmd17", "uracil")
    assert [path.name for path in folder.rglob("*.npz")] == ["rmd17_uracil.npz"]
    assert not list(home.rglob("escaped.npz")) and len(catalogue.open_store("rmd17", "uracil")) == 12


def test_qm9_is_prepared_from_a_folder(home, monkeypatch):
    monkeypatch.setattr(qm9, "prepare", partial(qm9.prepare, molecules=40, unusable=2))
    store = catalogue.open_store("qm9", folder=write_qm9(home / "qm9").parent)
    assert len(store) == 38 and catalogue.checks(store)[0].startswith("warning: the numbers are not those")
