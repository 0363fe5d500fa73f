"""The host's own apt configuration decides where packages come from."""

from __future__ import annotations

import pytest

from reconciler.lib import debian
from reconciler.lib.bootstrap import explain
from reconciler.lib.debian import Source, check_names, parse_options, parse_targets, select
from reconciler.lib.errors import BangerError, ErrorClass
from reconciler.lib.run import Completed

LISTING = """\
http://mirror.test/debian/|bookworm|main|Debian|bookworm|oldstable
http://mirror.test/debian/|bookworm|contrib|Debian|bookworm|oldstable
http://mirror.test/debian/|bookworm-updates|main|Debian|bookworm-updates|oldstable-updates
http://mirror.test/debian/|bookworm-backports|main|Debian Backports|bookworm-backports|oldstable-backports
http://mirror.test/debian-security/|bookworm-security|main|Debian|bookworm-security|oldstable-security
https://vendor.test/node|nodistro|main|. nodistro|nodistro|nodistro
"""
ARCHIVE, SECURITY = "http://mirror.test/debian/", "http://mirror.test/debian-security/"


def test_a_followed_suite_is_taken_with_its_updates_and_security() -> None:
    assert select(parse_targets(LISTING), "bookworm") == (
        Source(ARCHIVE, "bookworm", ("main", "contrib")),
        Source(ARCHIVE, "bookworm-updates", ("main",)),
        Source(SECURITY, "bookworm-security", ("main",)),
    )


def test_a_suite_may_be_asked_for_by_its_other_name() -> None:
    assert [source.suite for source in select(parse_targets(LISTING), "oldstable")] == [
        "oldstable",
        "oldstable-updates",
        "oldstable-security",
    ]


def test_a_suite_that_the_host_does_not_follow_comes_from_the_same_archive() -> None:
    assert select(parse_targets(LISTING), "sid") == (Source(ARCHIVE, "sid", ("main", "contrib")),)


def test_before_the_first_update_the_archive_is_known_by_its_uri() -> None:
    listing = "http://mirror.test/debian/|bookworm|main|$(ORIGIN)|$(CODENAME)|$(SUITE)\n"
    assert select(parse_targets(listing), "bookworm") == (Source(ARCHIVE, "bookworm", ("main",)),)


@pytest.mark.parametrize(
    "listing",
    [
        "",
        "https://vendor.test/node|nodistro|main|. nodistro|nodistro|nodistro\n",
        "http://mirror.test/ubuntu/|noble|main|Ubuntu|noble|noble\n",
        "cdrom:[Debian 12]/|bookworm|main|Debian|bookworm|stable\n",
        "http://mirror.test/debian/|./||Debian|bookworm|stable\n",
        "W: a warning of apt\n",
    ],
)
def test_a_host_without_a_debian_archive_is_told_so(listing: str) -> None:
    with pytest.raises(BangerError, match="no Debian archive") as caught:
        select(parse_targets(listing), "bookworm")
    assert caught.value.hint


def test_every_source_is_pinned_to_the_archive_keys() -> None:
    assert str(Source(ARCHIVE, "bookworm", ("main", "contrib"))) == (
        "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://mirror.test/debian/ bookworm main contrib"
    )


def test_a_missing_keyring_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setattr(debian, "KEYRING", tmp_path / "none.gpg")
    monkeypatch.setattr(debian, "require", lambda program, package: program)
    with pytest.raises(BangerError, match="is missing") as caught:
        debian.sources("bookworm")
    assert "debian-archive-keyring" in str(caught.value.hint)


def test_only_options_about_reaching_a_mirror_are_taken_over() -> None:
    dump = """\
Acquire "";
Acquire::AllowInsecureRepositories "1";
Acquire::http "";
Acquire::http::Proxy "http://127.0.0.1:3142";
Acquire::http::Proxy::deb.test "DIRECT";
Acquire::https::Verify-Peer "false";
Acquire::http::User-Agent "x";
Acquire::Retries "5";
Acquire::http::Timeout "";
Acquire::Check-Valid-Until "false";
"""
    assert parse_options(dump) == (
        'Acquire::http::Proxy "http://127.0.0.1:3142";',
        'Acquire::http::Proxy::deb.test "DIRECT";',
        'Acquire::Retries "5";',
        'Acquire::Check-Valid-Until "false";',
    )


@pytest.mark.parametrize(
    ("suite", "package"),
    [
        ("bookworm", "--aptopt=x"),
        ("bookworm", "?essential"),
        ("bookworm", "./evil.deb"),
        ("bookworm", "a b"),
        ("bookworm", "x"),
        ("bookworm", "git$(id)"),
        ("--help", "git"),
        ("../etc", "git"),
    ],
)
def test_what_is_no_name_reaches_no_command_line(suite: str, package: str) -> None:
    with pytest.raises(BangerError, match="is not the name of"):
        check_names(suite, [package])


def test_names_as_debian_has_them_are_accepted() -> None:
    check_names("bookworm", ["g++", "libstdc++6", "python3.11", "0ad", "7zip"])


@pytest.mark.parametrize(
    ("lines", "cause", "error_class"),
    [
        (["E: Unable to locate package nope", "E: setup failed"], "has no package nope", ErrorClass.TERMINAL),
        (
            ["E: The repository 'http://m/debian nope Release' does not have a Release file."],
            "no suite bookworm",
            ErrorClass.TERMINAL,
        ),
        (
            ["E: Failed to fetch http://m/InRelease  Could not connect to 127.0.0.1:9", "E: apt-get update failed"],
            "Failed to fetch http://m/InRelease Could not connect",
            ErrorClass.RETRYABLE,
        ),
        (
            ["Err:1 http://m", "  Temporary failure resolving 'm'", "E: Failed to fetch http://m/InRelease  x"],
            "Failed to fetch",
            ErrorClass.RETRYABLE,
        ),
        (["dpkg: error: No space left on device", "E: apt-get failed"], "no space left", ErrorClass.TERMINAL),
        (["Write failed because No space left on device"], "no space left", ErrorClass.TERMINAL),
        (
            ["W: GPG error: http://m: NO_PUBKEY 123", "E: The repository 'http://m' is not signed."],
            "NO_PUBKEY 123",
            ErrorClass.TERMINAL,
        ),
        (
            [" a : Depends: b (>= 2) but 1 is to be installed", "E: Unable to correct problems, you have held broken packages."],
            "cannot be installed together: a : Depends: b",
            ErrorClass.TERMINAL,
        ),
        (["E: something new", "E: apt-get failed"], "something new", ErrorClass.TERMINAL),
        (["what is this"], "what is this", ErrorClass.TERMINAL),
        (
            ["I: creating tarball...", "tar: x: file changed as we read it", "W: creating tarball failed: E: tar failed",
             "I: main() received signal HUP: waiting for setup..."],
            "creating tarball failed: E: tar failed",
            ErrorClass.TERMINAL,
        ),
        ([], "mmdebstrap failed", ErrorClass.TERMINAL),
    ],
)  # fmt: skip
def test_a_failure_is_told_in_apts_words(lines: list[str], cause: str, error_class: ErrorClass) -> None:
    error = explain(lines, "bookworm", (Source(ARCHIVE, "bookworm", ("main",)),), replay="mmdebstrap bookworm")
    assert cause in error.cause
    assert "\n" not in error.cause
    assert error.error_class is error_class
    assert error.replay == "mmdebstrap bookworm"


@pytest.mark.parametrize(
    ("code", "said", "cause", "error_class"),
    [
        (-11, b"", "packing was killed by SIGSEGV", ErrorClass.RETRYABLE),
        (139, b"", "packing failed with exit code 139", ErrorClass.RETRYABLE),
        (
            1,
            b"a remark\nFATAL ERROR: cannot go on\n",
            "packing failed with exit code 1: FATAL ERROR",
            ErrorClass.TERMINAL,
        ),
    ],
)
def test_who_does_not_read_to_the_end_is_the_cause(code: int, said: bytes, cause: str, error_class: ErrorClass) -> None:
    """As mmdebstrap tells of it: its own error in a warning, with an empty line after it."""
    told = ["I: creating tarball...", "W: creating tarball failed: E: cannot copy to standard output: Broken pipe", ""]
    ends = [Completed(("unshare",), 1, b"", b""), Completed(("sqfstar",), code, b"", said)]
    assert cause in explain(told, "bookworm", (), replay="", ends=ends).cause
    assert explain(told, "bookworm", (), replay="", ends=ends).error_class is error_class
    assert explain(told, "bookworm", (), replay="", ends=ends[:1]).cause.endswith("Broken pipe")
