"""Which of the host's nameservers a guest can ask too."""

from __future__ import annotations

from pathlib import Path

from reconciler.drivers.network.resolvers import upstream


def shown(*texts: str | None, folder: Path) -> list[str]:
    files = [folder / str(number) for number in range(len(texts))]
    for file, text in zip(files, texts, strict=True):
        if text is not None:
            file.write_text(text)
    return [str(address) for address in upstream(files)]


def test_in_the_order_of_the_file_and_each_once(tmp_path: Path) -> None:
    text = "# nameserver 1.1.1.1\nsearch example.org\nnameserver 9.9.9.9\nnameserver\t10.0.0.2 \nnameserver 9.9.9.9\n"
    assert shown(text, folder=tmp_path) == ["9.9.9.9", "10.0.0.2"]


def test_what_only_the_host_can_ask_is_left_out(tmp_path: Path) -> None:
    text = (
        "nameserver 127.0.0.53\nnameserver 169.254.169.253\nnameserver 0.0.0.0\nnameserver ::1\nnameserver fe80::1%2\n"
    )
    assert shown(text, folder=tmp_path) == []
    assert shown(text + "nameserver 10.0.0.2\n", folder=tmp_path) == ["10.0.0.2"]


def test_the_second_file_counts_where_the_first_says_nothing(tmp_path: Path) -> None:
    assert shown(None, "nameserver 10.0.0.2\n", folder=tmp_path) == ["10.0.0.2"]
    assert shown("nameserver 127.0.0.53\n", "nameserver 10.0.0.2\n", folder=tmp_path) == ["10.0.0.2"]
    assert shown("nameserver 10.0.0.1\n", "nameserver 10.0.0.2\n", folder=tmp_path) == ["10.0.0.1"]


def test_rubbish_is_passed_over(tmp_path: Path) -> None:
    assert shown("nameserver\nnameserver x\nnameserver 1.2.3\nnameserver 1.2.3.4.5\n\xff\n", folder=tmp_path) == []
