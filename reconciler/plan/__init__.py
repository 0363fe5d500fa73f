"""From desired and observed to a plan. Pure: no I/O, no clock, no randomness.

`planner` puts it together from one module per noun; `order` draws the edges.
"""

from reconciler.plan.planner import PlanOptions, plan, plan_removal

__all__ = ["PlanOptions", "plan", "plan_removal"]
