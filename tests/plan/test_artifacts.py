"""Which artifact waits for which other."""

from __future__ import annotations

from reconciler.model.artifacts import BuiltImage, DebianImage, Image, ImageKernel, Kernel
from reconciler.model.desired import DesiredState
from reconciler.model.observed import ObservedState
from reconciler.plan.planner import plan

IMAGE = Image(name="base", source=DebianImage(suite="bookworm"), kernel="base")
KERNEL = Kernel(name="base", source=ImageKernel(image=IMAGE.id))
DESIRED = DesiredState(environment="env", images={"base": IMAGE}, kernels={"base": KERNEL})


def needs_of_the_kernel(observed: ObservedState) -> tuple[str, ...]:
    (step,) = (step for step in plan(DESIRED, observed).steps if step.id == "fetch kernel/base")
    return step.needs


def test_a_kernel_inside_of_an_image_waits_for_it() -> None:
    observed = ObservedState(install="install", environment="env", generation=1)
    assert needs_of_the_kernel(observed) == ("build image/base",)


def test_but_not_for_one_that_is_there() -> None:
    observed = ObservedState(install="install", environment="env", generation=1, images=frozenset([IMAGE.id]))
    assert needs_of_the_kernel(observed) == ()


def test_an_image_waits_for_the_one_that_it_is_built_on() -> None:
    built = Image(name="built", source=BuiltImage(base=IMAGE.id), kernel="base")
    desired = DesiredState(environment="env", images={"built": built, "base": IMAGE}, kernels={"base": KERNEL})
    observed = ObservedState(install="install", environment="env", generation=1)
    needs = {step.id: step.needs for step in plan(desired, observed).steps}
    assert needs["build image/built"] == ("build image/base",) and needs["build image/base"] == ()
