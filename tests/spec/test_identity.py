"""Comments, key order, quoting, style and defaults written out change nothing."""

from __future__ import annotations

import random
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.model.desired import DesiredState
from reconciler.spec import load_text, published

SIZES = st.sampled_from(["64MiB", "512MiB", "1GiB", "3GiB"])
NETWORKS = st.sampled_from(["user", "none", "lab"])
PACKAGES = st.lists(st.sampled_from(["git", "curl", "g++", "make", "vim"]), max_size=5)
VOLUMES = st.dictionaries(st.sampled_from(["a", "b", "data"]), SIZES, max_size=3).map(
    lambda sizes: {name: {"size": size, "mount": f"/srv/{name}"} for name, size in sizes.items()}
)


@st.composite
def vms(draw: st.DrawFn) -> dict[str, Any]:
    vm: dict[str, Any] = {"image": "base"}
    optional: dict[str, st.SearchStrategy[Any]] = {
        "cpus": st.integers(1, 128),
        "memory": SIZES,
        "disk": SIZES,
        "network": NETWORKS,
        "backend": st.sampled_from(["auto", "qemu"]),
        "volumes": VOLUMES,
        "protect": st.booleans(),
        "state": st.sampled_from(["running", "stopped"]),
        "count": st.integers(0, 4),
        "ready": st.fixed_dictionaries({"timeout": st.sampled_from(["1s", "90s", "1d"])}),
    }
    for key in draw(st.sets(st.sampled_from(sorted(optional)))):
        vm[key] = draw(optional[key])
    return vm


FILES = st.fixed_dictionaries(
    {
        "apiVersion": st.just("banger/v1"),
        "name": st.just("demo"),
        "networks": st.just({"lab": {"cidr": "10.3.0.0/24"}}),
        "kernels": st.just({"k": {"debian": {"suite": "bookworm"}}}),
        "images": PACKAGES.map(
            lambda packages: {"base": {"debian": {"suite": "sid", "packages": packages}, "kernel": "k"}}
        ),
        "vms": st.dictionaries(st.sampled_from(["dev", "web", "db"]), vms()),
    }
)


def resolved(text: str) -> DesiredState:
    return load_text(text.encode(), "f", {}, {})


def shuffled(value: Any, chance: random.Random) -> Any:
    """The same mappings in another order of keys, and packages in another order."""
    if isinstance(value, dict):
        keys = list(value)
        chance.shuffle(keys)
        return {key: shuffled(value[key], chance) for key in keys}
    return chance.sample(value, len(value)) if isinstance(value, list) else value


def written_out(file: dict[str, Any]) -> dict[str, Any]:
    """The same file with every default of the schema in it."""
    names = {name: {**published.defaults("network"), **network} for name, network in file["networks"].items()}
    kernels = {
        name: {"debian": {**published.defaults("debianKernel"), **k["debian"]}} for name, k in file["kernels"].items()
    }
    filled = {}
    for name, vm in file["vms"].items():
        full = {**published.defaults("vm"), **vm}
        ready = dict(published.defaults("ready"))
        if full["network"] == "none":
            del ready["ssh"]  # whose default there is another
        filled[name] = {**full, "ready": {**ready, **full["ready"]}}
    return {"defaults": {}, "params": {}, **file, "networks": names, "kernels": kernels, "vms": filled}


@settings(max_examples=60, deadline=None)
@given(FILES, st.randoms(use_true_random=False))
def test_key_order_changes_nothing(file: dict[str, Any], chance: random.Random) -> None:
    assert resolved(yaml.safe_dump(shuffled(file, chance), sort_keys=False)) == resolved(yaml.safe_dump(file))


@settings(max_examples=60, deadline=None)
@given(FILES)
def test_defaults_written_out_change_nothing(file: dict[str, Any]) -> None:
    assert resolved(yaml.safe_dump(written_out(file))) == resolved(yaml.safe_dump(file))


@settings(max_examples=60, deadline=None)
@given(FILES, st.text(alphabet="abc:{}[]'\"#&*! ", max_size=20))
def test_comments_and_style_change_nothing(file: dict[str, Any], comment: str) -> None:
    block, flow = yaml.safe_dump(file, default_flow_style=False), yaml.safe_dump(file, default_flow_style=True)
    commented = "".join(f"{line} # {comment}\n# {comment}\n\n" for line in block.splitlines())
    assert resolved(block) == resolved(flow) == resolved(commented) == resolved(block.replace("\n", "\r\n"))


@settings(max_examples=60, deadline=None)
@given(FILES)
def test_a_default_is_as_good_as_each_vm_saying_so(file: dict[str, Any]) -> None:
    common = {"cpus": 3, "disk": "2GiB", "ready": {"timeout": "45s"}}
    below = {name: {**common, **vm} for name, vm in file["vms"].items()}
    assert resolved(yaml.safe_dump({**file, "defaults": common})) == resolved(yaml.safe_dump({**file, "vms": below}))
