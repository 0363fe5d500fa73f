"""The kinds of object, and the version of everything that is published about them. Pure."""

from __future__ import annotations

from enum import StrEnum

API_VERSION = "banger/v1"


class Noun(StrEnum):
    """The kinds of object, with the same names in every stage."""

    VM = "vm"
    NETWORK = "network"
    IMAGE = "image"
    KERNEL = "kernel"
    VOLUME = "volume"
    CACHE = "cache"
    ENVIRONMENT = "environment"
