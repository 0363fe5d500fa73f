"""A checked tree to the model, and the checks that span more than one value.

Everything is looked at even where something else is wrong; what depends on a value that was already reported is
passed over in silence, so that each mistake is told once.
"""

from __future__ import annotations

from reconciler.model.desired import Controller, DesiredState
from reconciler.model.vm import NO_NETWORK, USER_NETWORK
from reconciler.spec import published
from reconciler.spec.artifacts import own_kernels, resolve_images, resolve_kernels
from reconciler.spec.cache import resolve_cache
from reconciler.spec.catalogs import Catalogs
from reconciler.spec.defaults import look_up, names_of
from reconciler.spec.networks import resolve_networks
from reconciler.spec.tree import Document
from reconciler.spec.values import RESYNC, fraction, seconds
from reconciler.spec.vms import Names, resolve_vms


def resolve(document: Document, catalogs: Catalogs) -> DesiredState | None:
    """The environment that the document asks for, or None after adding at least one problem to the document."""
    if document.root.bad:
        return None
    networks = resolve_networks(document)
    kernels = resolve_kernels(document, catalogs)
    own, images = own_kernels(document, resolve_images(document, catalogs))
    kernels |= own | catalogs.kernels
    catalogs.finish()
    vms = resolve_vms(
        document,
        Names(set(names_of(document, "images")), {*names_of(document, "networks"), USER_NETWORK, NO_NETWORK}),
        networks=networks,
        kernels=kernels,
        images=images,
    )
    name = look_up(document, ("name",))
    controller = _controller(document)
    cache = resolve_cache(document)
    if document.problems or not name.usable or controller is None:
        return None
    return DesiredState(
        environment=str(name.value),
        networks=networks,
        kernels=kernels,
        images=images,
        vms=vms,
        controller=controller,
        cache=cache,
    )


def _controller(document: Document) -> Controller | None:
    default = published.defaults("controller")
    given = {key: look_up(document, ("controller", key), default=value) for key, value in default.items()}
    resync = seconds(document, given["resync"], *RESYNC)
    max_delete = fraction(document, given["maxDelete"])
    if resync is None or max_delete is None or not given["prune"].usable:
        return None
    return Controller(resync=resync, prune=bool(given["prune"].value), max_delete=max_delete)
