"""Arbitrary desired states, and arbitrary hosts for them: half-made, drifted, left over, cut off in mid-plan."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Interface, IPv6Network

from hypothesis import strategies as st

from reconciler.lib.units import GIB, MIB
from reconciler.model.artifacts import GUEST_TOOLS, DebianImage, DebianKernel, Image, Kernel
from reconciler.model.changes import boot_facts, creation_facts
from reconciler.model.desired import Controller, DesiredState
from reconciler.model.ids import mac_address
from reconciler.model.inside import GuestFile, ProvisionStep, Secret, Variable
from reconciler.model.observed import Ended, ObservedState, ObservedVm, ObservedVolume, Stray, Unknown
from reconciler.model.observed_links import ObservedBridge, ObservedRules, ObservedTap
from reconciler.model.vm import (
    NO_NETWORK,
    PREFIX6,
    Dependency,
    DependsOn,
    Egress,
    Network,
    OnChange,
    Protocol,
    Publication,
    Ready,
    RestartPolicy,
    RunState,
    Vm,
    Volume,
    Workspace,
)
from reconciler.plan import PlanOptions, plan
from reconciler.plan.rules import recorded_rules
from tests.fakes.world import World, bridge_name, tap_name

NAMES = ["a", "b", "c", "d"]
NETWORKS = ["lab", "dmz"]
CIDRS = [IPv4Network("172.30.7.0/29"), IPv4Network("172.30.8.0/24"), IPv4Network("10.9.0.0/24")]
TTL = 3600.0
PORTS = [Publication(host_address="", host_port=port, protocol=Protocol.TCP, guest_port=80) for port in (8080, 8081)]
KERNELS = [
    Kernel(name="debian", source=DebianKernel(suite="bookworm", package=p))
    for p in ("linux-image-cloud-amd64", "linux-image-amd64")
]
WORKSPACES = [Workspace(host="/src", guest=guest) for guest in ("/root/a", "/root/b")]
PACKAGES = [(), ("git",), ("curl", "git")]
IMAGE_IDS = [Image(name="any", source=DebianImage(suite="bookworm", packages=p), kernel="debian").id for p in PACKAGES]

_mostly = st.sampled_from([True, True, False])
_rarely = st.sampled_from([False, False, True])


SECRETS = (Secret(name="TOKEN", env="CI_TOKEN"),)
WORK = (ProvisionStep(run="true"), ProvisionStep(script="/home/me/dots"))
FILES = ((GuestFile(guest="/etc/motd", content="hello"),), (GuestFile(guest="/root", host="/home/me/dots"),))


@st.composite
def networks(draw: st.DrawFn) -> dict[str, Network]:
    """Mostly the same network under the same name, or under the other one: renamed, moved, exchanged."""
    names = draw(st.sets(st.sampled_from(NETWORKS)))
    cidrs = draw(st.one_of(st.just(CIDRS), st.just(CIDRS), st.permutations(CIDRS)))
    return {
        name: Network(
            name=name,
            cidr=cidr,
            mtu=draw(st.sampled_from([1500, 1500, 1400])),
            cidr6=draw(st.sampled_from([None, None, IPv6Network(f"fd00:{number}::/64")])),
            nat=draw(_mostly),
            isolated=draw(_rarely),
            egress=draw(st.sampled_from([None, None, (), (Egress(to="10.0.0.0/8"),)])),
        )
        for number, (name, cidr) in enumerate(zip(NETWORKS, cidrs, strict=False))
        if name in names
    }


@st.composite
def images(draw: st.DrawFn) -> dict[str, Image]:
    """One or two images; two may be the same one under two names."""
    count = draw(st.integers(1, 2))
    return {
        name: Image(
            name=name, source=DebianImage(suite="bookworm", packages=draw(st.sampled_from(PACKAGES))), kernel="debian"
        )
        for name in ("base", "twin")[:count]
    }


@st.composite
def vm(draw: st.DrawFn, name: str, nets: dict[str, Network], image: Image, kernel: Kernel) -> Vm:
    network = draw(st.sampled_from(["user", "none", *nets, *nets]))
    volume = Volume(name="data", size=draw(st.sampled_from([GIB, 2 * GIB])), mount="/data")
    return Vm(
        name=name,
        image=image.name,
        image_id=image.id,
        kernel=kernel.name,
        kernel_id=kernel.id,
        cpus=draw(st.integers(1, 2)),
        memory=draw(st.sampled_from([128 * MIB, 512 * MIB])),
        disk=draw(st.sampled_from([GIB, GIB, 2 * GIB])),
        network=network,
        volumes=(volume,) if draw(st.booleans()) else (),
        ready=Ready(ssh=network != "none", port=draw(st.sampled_from([None, 80])) if network != "none" else None),
        protect=draw(_rarely),
        state=draw(st.sampled_from([RunState.RUNNING, RunState.RUNNING, RunState.STOPPED])),
        restart=draw(st.sampled_from(RestartPolicy)),
        on_change=draw(st.sampled_from(OnChange)),
        ttl=draw(st.sampled_from([None, None, TTL])),
        workspace=draw(st.sampled_from([None, None, *WORKSPACES])) if network != NO_NETWORK else None,
        files=draw(st.sampled_from([(), (), *FILES])),
        env=draw(st.sampled_from([(), (Variable(name="A", value="b"),)])),
        secrets=draw(st.sampled_from([(), SECRETS])) if network != NO_NETWORK else (),
        provision=draw(st.sampled_from([(), WORK])) if network != NO_NETWORK else (),
    )


@st.composite
def dependencies(draw: st.DrawFn, vms: dict[str, Vm]) -> dict[str, Vm]:
    """Each depends on some of those that come before it in an order of its own: a file has no circles."""
    places = draw(st.permutations(list(vms)))
    made = {}
    for name, vm in vms.items():
        before = places[: places.index(name)]
        chosen = sorted(draw(st.sets(st.sampled_from(before), max_size=2))) if before else []
        wanted = tuple(Dependency(vm=other, on=draw(st.sampled_from(DependsOn))) for other in chosen)
        made[name] = replace(vm, depends_on=wanted)
    return made


@st.composite
def desired_states(draw: st.DrawFn) -> DesiredState:
    nets, kernel, made_images = draw(networks()), draw(st.sampled_from(KERNELS)), draw(images())
    names = sorted(draw(st.sets(st.sampled_from(NAMES))))
    vms = {name: draw(vm(name, nets, draw(st.sampled_from(list(made_images.values()))), kernel)) for name in names}
    taken: set[tuple[str, IPv4Address]] = set()
    for name, made in vms.items():
        if made.bridged and draw(st.booleans()):
            # The very addresses that leases begin with, so that they collide with what others hold.
            address = nets[made.network].cidr.network_address + draw(st.integers(2, 4))
            if (made.network, address) not in taken:
                taken.add((made.network, address))
                vms[name] = replace(made, address=address)
    for port in PORTS:
        # Few ports and few VMs, so that a port changes hands.
        able = [name for name, made in vms.items() if made.network != NO_NETWORK]
        if able and draw(st.booleans()):
            name = draw(st.sampled_from(able))
            vms[name] = replace(vms[name], ports=(*vms[name].ports, port))
    if draw(st.booleans()):
        vms = draw(dependencies(vms))
    return DesiredState(
        environment="env",
        networks=nets,
        kernels={"debian": kernel},
        images=made_images,
        vms=vms,
        controller=Controller(prune=draw(_mostly), max_delete=draw(st.sampled_from([0.0, 0.25, 0.5, 1.0]))),
    )


@st.composite
def drifted_states(draw: st.DrawFn) -> ObservedState:
    """A host that once converged to some other file, and to which anything may have happened since."""
    past = draw(desired_states())
    bridges = {
        n.name: ObservedBridge(
            name=bridge_name(n.name),
            mtu=draw(st.sampled_from([n.mtu, n.mtu, 1280])),
            up=draw(_mostly),
            addresses=(IPv4Interface(f"{n.gateway}/{n.cidr.prefixlen}"),) if draw(_mostly) else (),
            addresses6=(IPv6Interface(f"{n.gateway6}/{PREFIX6}"),) if n.cidr6 is not None and draw(_mostly) else (),
        )
        for n in past.networks.values()
        if draw(_mostly)
    }
    vms, taps, volumes = {}, {}, []
    used = {vm.address for vm in past.vms.values() if vm.address}
    for spec in past.vms.values():
        net, address = past.networks.get(spec.network), spec.address
        if net is not None and address is None:
            address = next((h for h in list(net.cidr.hosts())[1:8] if h not in used), None)
            if address is None:
                continue
            used.add(address)
        running = draw(st.booleans())
        vms[spec.name] = ObservedVm(
            name=spec.name,
            id=f"old-{spec.name}",
            spec=spec,
            mac=mac_address("install", "env", spec.name),
            address=address,
            created=creation_facts(spec),
            booted=boot_facts(spec, net, address) if running or draw(st.booleans()) else {},
            disk=draw(st.sampled_from([True, True, True, False])),
            pid=draw(st.integers(2, 9999)) if running else None,
            generation=draw(st.sampled_from([0, 1, 1, 1, 2])),
            started_at=1.0 if running or draw(st.booleans()) else None,
            ready_at=2.0 if running and draw(_mostly) else None,
            shipped=draw(st.sampled_from([None, "/root/a"])),
            uptime=draw(st.sampled_from([0.0, 2 * TTL])) if running else None,
        )
        vms[spec.name] = replace(vms[spec.name], **draw(_ends(vms[spec.name])))
        if spec.bridged and draw(_mostly):
            masters = [None, *(b.name for b in bridges.values())]
            right = bridges[spec.network].name if spec.network in bridges else None
            taps[spec.name] = ObservedTap(
                name=tap_name(spec.name),
                mtu=draw(st.sampled_from([1500, 1500, 1400])),
                up=draw(_mostly),
                carrier=running and draw(_mostly),
                master=right if draw(_mostly) else draw(st.sampled_from(masters)),
            )
        if draw(st.booleans()):
            volumes += [ObservedVolume(vm=spec.name, name=v.name, size=v.size) for v in spec.volumes]
    if past.networks and draw(_rarely):
        taps.setdefault("ghost", ObservedTap(name="bgt-ghost", mtu=1500, up=True, carrier=False))
    if draw(_rarely):
        # What a VM left that was removed from the file long ago.
        gone = draw(st.sampled_from(NAMES))
        if gone not in vms:
            volumes.append(ObservedVolume(vm=gone, name="data", size=2 * GIB))
    state = ObservedState(
        install="install",
        environment="env",
        generation=2,
        vms=vms,
        networks=past.networks,
        bridges=bridges,
        taps=taps,
        images=frozenset(draw(st.sets(st.sampled_from(IMAGE_IDS)))),
        kernels=frozenset(draw(st.sets(st.sampled_from([k.id for k in KERNELS])))),
        tools=frozenset({GUEST_TOOLS.id} if draw(st.booleans()) else ()),
        volumes=tuple(volumes),
        secrets={SECRETS[0]: draw(st.sampled_from(["one", "one", "two", Unknown("it is not set")]))},
        sources={"/home/me/dots": draw(st.sampled_from(["one", "one", "two", Unknown("Permission denied")]))},
        strays=(Stray(vm_id="stray", pid=4242),) if draw(_rarely) else (),
        corpses=("/cache/images/.staging/x",) if draw(_rarely) else (),
    )
    return replace(state, rules=draw(rules(state)))


@st.composite
def rules(draw: st.DrawFn, state: ObservedState) -> dict[str, ObservedRules]:
    """Mostly those that fit; else flushed, tampered with, of an earlier state, or left over."""
    found = {}
    for name, network in state.networks.items():
        fitting = recorded_rules(network, state).digest
        if draw(_mostly):
            found[name] = ObservedRules(
                digest=draw(st.sampled_from([fitting, fitting, "0" * 16])), intact=draw(_mostly)
            )
    if draw(_rarely):
        found.setdefault(draw(st.sampled_from(NETWORKS)), ObservedRules(digest="f" * 16, intact=True))
    return found


@st.composite
def _ends(draw: st.DrawFn, vm: ObservedVm) -> dict[str, str | Ended | None]:
    """Stopped on purpose, which may have been cut off; or ended in whatever way; or neither."""
    halted = draw(st.sampled_from([None, None, None, "stopped by hand"]))
    gone = not vm.running and vm.started_at is not None and halted is None
    return {"halted": halted, "ended": draw(st.sampled_from(Ended)) if gone else None}


@st.composite
def observed_states(draw: st.DrawFn) -> ObservedState:
    """A drifted host, on which perhaps a plan for another file was begun: steps failed, or the process was killed."""
    state = draw(drifted_states())
    if not draw(st.booleans()):
        return state
    world = World(state)
    begun = plan(draw(desired_states()), state, PlanOptions(allow_recreate=draw(st.booleans())))
    steps = [step.id for step in begun.steps]
    if steps and draw(st.booleans()):
        world.run(begun, fail=frozenset(draw(st.sets(st.sampled_from(steps), max_size=2))))
    else:
        world.run(replace(begun, steps=begun.steps[: draw(st.integers(0, len(steps)))]))
    return world.state
