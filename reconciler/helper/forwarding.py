"""Forwarding for our networks, as little of it as will do, and put back (networking/ip-sysctl in the kernel's tree).

IPv4: on our bridges and on each of the host's interfaces that is up and has an address, never `ip_forward`, which
would make a router of the host. IPv6 knows but one switch for all. What was switched is recorded in a table, whose
chain keeps everybody else from being forwarded; the record goes last, so a killed helper's work is finished later.
Once somebody else has turned IPv4 forwarding on as a whole, it is theirs, and stays.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from reconciler.helper.names import managed
from reconciler.helper.nft import Tables
from reconciler.helper.run import Runner

TABLE = "banger-forward"
_SYSCTL = Path("/proc/sys/net")
_PLAIN = re.compile(r"[A-Za-z0-9_.:@-]{1,15}")
"""Interface names that can stand in a rule; whoever has stranger ones switches them himself."""
_ALL6 = "all"
"""In the record of IPv6 interfaces: that the one switch was ours to turn."""


def read(name: str) -> str:
    """A sysctl below `net`; "" if there is none, as when its interface is gone."""
    try:
        return (_SYSCTL / name).read_text().strip()
    except OSError:
        return ""


def write(name: str, value: str) -> bool:
    """Sets a sysctl unless it is so already, or gone; whether it had to. Raises OSError if the kernel refuses."""
    if read(name) in ("", value):
        return False
    (_SYSCTL / name).write_text(value)
    return True


def bridge_sysctls(name: str, tables: Tables) -> list[tuple[str, str]]:
    """What a network's own bridge needs, by its rules."""
    text = tables.get(("inet", name), "")
    needs, publishes = "chain postrouting" in text, "chain output" in text
    return [(f"ipv4/conf/{name}/forwarding", f"{needs:d}"), (f"ipv4/conf/{name}/route_localnet", f"{publishes:d}")]


def settle(run: Runner, tables: Tables, hosts: Iterable[str], *, dry: bool = False) -> bool:
    """Switches what the networks in `tables` need, and back what none needs any more; whether anything had to change.

    Parameters
    ----------
    hosts: the host's interfaces that are up and have an IPv4 address.
    dry: only tell.
    """
    hosts = [name for name in hosts if _PLAIN.fullmatch(name)]
    ours = [(name, text) for (family, name), text in tables.items() if family == "inet" and managed(name)]
    record = tables.get(("inet", TABLE))
    old4, old6 = _recorded(record, "v4"), _recorded(record, "v6")
    if record is None and any(read(f"ipv4/conf/{name}/forwarding") == "1" for name, _ in ours):
        # Somebody flushed all rules, the record with them. An interface that forwards by itself is our doing.
        old4 = {name for name in hosts if read(f"ipv4/conf/{name}/forwarding") == "1"}
        # And for IPv6 nobody but us sets what interfaces to come start with.
        old6 = {_ALL6, *_listening_to_routers("2")} if read("ipv6/conf/default/accept_ra") == "2" else old6
    new4, new6 = set[str](), set[str]()
    theirs4 = read("ipv4/conf/all/forwarding") == "1"
    if any("chain postrouting" in text for _, text in ours) and not theirs4:
        new4 = old4 | {name for name in hosts if read(f"ipv4/conf/{name}/forwarding") == "0"}
    if any("ip6 saddr" in text for _, text in ours) and (_ALL6 in old6 or read("ipv6/conf/all/forwarding") == "0"):
        new6 = old6 | {_ALL6, *_listening_to_routers("1")}
    off = [(f"ipv4/conf/{name}/forwarding", "0") for name in sorted(old4 - new4) if not theirs4]
    off += [("ipv6/conf/all/forwarding", "0")] if _ALL6 in old6 - new6 else []
    off += [(f"ipv6/conf/{name}/accept_ra", "1") for name in sorted(old6 - new6 - {_ALL6})]
    # Routes that routers announced go when the switch is turned, unless accept_ra is 2 by then.
    on = [(f"ipv6/conf/{name}/accept_ra", "2") for name in sorted(new6 - {_ALL6})]
    on += [("ipv6/conf/all/forwarding", "1")] if new6 else []
    on += [(f"ipv4/conf/{name}/forwarding", "1") for name in sorted(new4)]
    rewrite = (record is None) == bool(new4 or new6) or (_recorded(record, "v4"), _recorded(record, "v6")) != (
        new4,
        new6,
    )
    rewrite = rewrite or (record or "").count(" drop\n") != bool(new4) + bool(new6)
    if dry:
        return rewrite or any(read(name) not in ("", value) for name, value in (*off, *on))
    changed = [write(name, value) for name, value in off]
    if rewrite:
        run("nft", "-f", "-", text=_table(new4, new6))
    changed += [write(name, value) for name, value in on]
    return rewrite or any(changed)


def _listening_to_routers(how: str) -> list[str]:
    names = [path.parent.name for path in (_SYSCTL / "ipv6/conf").glob("*/accept_ra")]
    names = [name for name in names if name not in ("all", "lo") and not managed(name) and _PLAIN.fullmatch(name)]
    return [name for name in names if read(f"ipv6/conf/{name}/accept_ra") == how]


def _recorded(text: str | None, name: str) -> set[str]:
    found = re.search(rf"\tset {name} \{{[^}}]*?elements = \{{(.*?)\}}", text or "", re.S)
    return set(re.findall(r'"([^"]+)"', found[1])) if found else set()


def _table(v4: set[str], v6: set[str]) -> str:
    lines = [f"add table inet {TABLE}", f"delete table inet {TABLE}"]
    if v4 or v6:
        lines += [f"table inet {TABLE} {{", _names("v4", v4), _names("v6", v6)]
        lines += ["chain forward { type filter hook forward priority 0; policy accept;"]
        lines += ["ct state established,related accept"]
        lines += ['iifname @v4 oifname != "bgb-*" meta nfproto ipv4 drop'] if v4 else []
        lines += ['iifname != "bgb-*" oifname != "bgb-*" meta nfproto ipv6 drop'] if v6 else []
        lines += ["}", "}"]
    return "\n".join(lines)


def _names(name: str, members: set[str]) -> str:
    quoted = ", ".join(f'"{member}"' for member in sorted(members))
    return f"set {name} {{ type ifname; {f'elements = {{ {quoted} }};' if members else ''} }}"
