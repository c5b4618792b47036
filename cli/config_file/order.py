"""In which order changes can be made so that each step is allowed. Pure.

What a thing uses comes before it, and goes after it. Nothing here knows what a change does beyond that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

from cli.config_file.parser import Node


@dataclass(frozen=True)
class Step:
    """A change as far as its place in the order goes."""

    node: Node
    uses: AbstractSet[Node] = frozenset()  # from now on
    used: AbstractSet[Node] = frozenset()  # until now
    last: bool = False  # nothing may use it any more when this is done
    takes: str = ""  # an attribute
    gives: str = ""


def ordered(steps: Sequence[Step]) -> list[Node]:
    """An order for them all. Two that swap their attributes have none: then either may be first, and is refused."""
    needs = _needs({step.node: step for step in steps})
    try:
        return list(TopologicalSorter(_with_attributes(needs, steps)).static_order())
    except CycleError:
        return list(TopologicalSorter(needs).static_order())


def _needs(steps: Mapping[Node, Step]) -> dict[Node, set[Node]]:
    needs: dict[Node, set[Node]] = {node: set() for node in steps}
    for node, step in steps.items():
        for other in (step.uses | step.used) & steps.keys():
            if steps[other].last:
                needs[other].add(node)
            elif other in step.uses:
                needs[node].add(other)
    return needs


def _with_attributes(needs: Mapping[Node, set[Node]], steps: Sequence[Step]) -> dict[Node, set[Node]]:
    givers: dict[str, set[Node]] = {}
    for step in steps:
        givers.setdefault(step.gives, set()).add(step.node)
    return {
        step.node: needs[step.node] | (givers.get(step.takes, set()) - {step.node} if step.takes else set())
        for step in steps
    }
