"""What an image's manifest tells, and what its making is asked for."""

from __future__ import annotations

from reconciler.drivers.images.debian import BASE_PACKAGES, installed_packages

STATUS = """\
Package: zlib1g
Status: install ok installed
Version: 1:1.2.13
Description: compression library
 Version: not this one

Package: gone
Status: deinstall ok config-files
Version: 1.0

Package: half
Status: install ok half-configured
Version: 1.0

Package: bash
Status: install ok installed
Version: 5.2.15-2+b2
"""


def test_only_installed_packages_are_listed_by_name() -> None:
    assert installed_packages(STATUS) == [
        {"name": "bash", "version": "5.2.15-2+b2"},
        {"name": "zlib1g", "version": "1:1.2.13"},
    ]


def test_the_base_has_an_init_and_a_way_in() -> None:
    assert {"systemd-sysv", "openssh-server", "udev", "dbus", "iproute2"} <= set(BASE_PACKAGES)
    assert not [name for name in BASE_PACKAGES if name.startswith("linux-image")]
