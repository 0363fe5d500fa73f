"""References to images: one canonical form, and no guesses."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.model.reference import canonical, pinned_digest, registry, repository

DIGEST = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("docker.io/alpine", "docker.io/library/alpine:latest"),
        ("index.docker.io/library/alpine:3.20", "docker.io/library/alpine:3.20"),
        ("docker.io/a/b", "docker.io/a/b:latest"),
        ("localhost/a", "localhost/a:latest"),
        ("localhost:5000/a/b/c:x-1_2.3", "localhost:5000/a/b/c:x-1_2.3"),
        ("GHCR.io/a/b", "ghcr.io/a/b:latest"),
        ("127.0.0.1:5000/a", "127.0.0.1:5000/a:latest"),
        ("[::1]:5000/a", "[::1]:5000/a:latest"),
        (f"ghcr.io/a/b@{DIGEST}", f"ghcr.io/a/b@{DIGEST}"),
        (f"ghcr.io/a/b:1@{DIGEST}", f"ghcr.io/a/b:1@{DIGEST}"),
        ("ghcr.io/a__b/c---d.e_f", "ghcr.io/a__b/c---d.e_f:latest"),
    ],
)
def test_a_reference_has_one_form(written: str, meant: str) -> None:
    assert canonical(written) == meant
    assert canonical(meant) == meant


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("alpine:3", "write docker.io/library/alpine:3"),
        ("a/b", "write docker.io/a/b"),
        ("docker://docker.io/a", "without docker://"),
        ("ghcr.io/a/B", "lower case"),
        ("ghcr.io/a@sha256:12", "64 hexadecimal"),
        (f"ghcr.io/a@sha512:{'0' * 128}", "64 hexadecimal"),
        ("ghcr.io/", "registry/name:tag"),
        ("ghcr.io/a:", "registry/name:tag"),
        ("ghcr.io/a b", "registry/name:tag"),
        ("ghcr.io/../a", "registry/name:tag"),
        ("ghcr.io/a\n", "registry/name:tag"),
        ("-ghcr.io/a", "registry/name:tag"),
        (f"ghcr.io/{'a' * 256}", "at most 255"),
        ("", "names no registry"),
    ],
)
def test_what_is_none_says_what_would_be_right(written: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        canonical(written)


def test_its_parts() -> None:
    reference = canonical(f"localhost:5000/a/b:1@{DIGEST}")
    assert repository(reference) == "localhost:5000/a/b"
    assert repository("localhost:5000/a/b@" + DIGEST) == "localhost:5000/a/b"
    assert pinned_digest(reference) == DIGEST
    assert pinned_digest("ghcr.io/a:1") == ""
    assert registry(reference) == "localhost:5000"


@settings(max_examples=500, deadline=None)
@given(st.text(alphabet="ab.:/@-_A[]1 \n", max_size=40))
def test_what_is_taken_is_harmless_on_a_command_line(text: str) -> None:
    try:
        meant = canonical(text)
    except ValueError:
        return
    assert not meant.startswith("-") and not set(meant) & set(" \n") and ".." not in meant.split("/")
    assert canonical(meant) == meant
