import json
import subprocess
import sys

import pytest

from equiform.__main__ import with_large_pages

SETTING = "glibc.malloc.hugetlb=1"
MADVISE = "always [madvise] never\n"


def test_large_pages_are_asked_for_where_the_kernel_gives_them_on_request():
    assert with_large_pages({"A": "b"}, MADVISE, "glibc 2.36") == {"A": "b", "GLIBC_TUNABLES": SETTING}


def test_other_tunables_stay():
    environment = with_large_pages({"GLIBC_TUNABLES": "glibc.malloc.arena_max=2"}, MADVISE, "glibc 2.39")
    assert environment == {"GLIBC_TUNABLES": f"glibc.malloc.arena_max=2:{SETTING}"}


@pytest.mark.parametrize(
    ("environment", "mode", "c_library"),
    [
        ({"GLIBC_TUNABLES": SETTING}, MADVISE, "glibc 2.36"),  # done: else the program would start for ever
        ({"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"}, MADVISE, "glibc 2.36"),  # switched off
        ({}, "[always] madvise never", "glibc 2.36"),
        ({}, "always madvise [never]", "glibc 2.36"),
        ({}, "", "glibc 2.36"),
        ({}, MADVISE, "glibc 2.34"),
        ({}, MADVISE, "musl 1.2"),
        ({}, MADVISE, ""),
    ],
)
def test_nothing_is_started_again_where_it_would_change_nothing(environment: dict, mode: str, c_library: str):
    assert with_large_pages(environment, mode, c_library) is None


def test_a_program_keeps_its_arguments_when_it_starts_again():
    code = "\n".join(
        [
            "import json, os, pathlib, sys, equiform.__main__ as start",
            "class Mode:",
            "    is_file = staticmethod(lambda: True)",
            f"    read_text = staticmethod(lambda: {MADVISE!r})",
            "start._MODE, start._c_library = Mode, lambda: 'glibc 2.36'",
            "start.restart_with_large_pages()",
            "print(json.dumps([sys.argv[1:], os.environ['GLIBC_TUNABLES']]))",
        ]
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "two words", "--flag"], capture_output=True, text=True, check=True, env={}, timeout=60
    )
    assert json.loads(done.stdout) == [["two words", "--flag"], SETTING]
