"""Every order keeps its promises: what a change uses is there, and what goes is used by nobody any more."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.config_file.order import Step, ordered
from cli.config_file.parser import Node


def node(name: str) -> Node:
    return "binding", name


def test_a_renamed_binding_goes_before_the_one_that_takes_its_attribute() -> None:
    steps = [Step(node("new"), takes="vip"), Step(node("old"), last=True, gives="vip")]
    assert ordered(steps) == ordered(steps[::-1]) == [node("old"), node("new")]


def test_a_swap_has_an_order_all_the_same() -> None:
    steps = [Step(node("a"), takes="x", gives="y"), Step(node("b"), takes="y", gives="x")]
    assert sorted(ordered(steps)) == [node("a"), node("b")]


@pytest.mark.parametrize("used_after", [True, False])
def test_what_goes_goes_after_whoever_used_it(used_after: bool) -> None:
    going = Step(("source", "s"), last=True)
    user = Step(node("b"), uses={going.node} if used_after else set(), used={going.node})
    assert ordered([going, user]) == [user.node, going.node]


@given(st.data())
def test_orders_of_any_configuration(data: st.DataObject) -> None:
    """Chains without a circle before and after, some bindings going, all of one source that may go as well."""
    names = data.draw(st.lists(st.sampled_from("abcdefgh"), unique=True, min_size=1))
    source = Step(("source", "s"), last=data.draw(st.booleans()))
    going = set(data.draw(st.lists(st.sampled_from(names), unique=True)))
    steps = [source]
    for at, name in enumerate(names):
        earlier = [one for one in names[:at] if one not in going]
        after = (
            {node(one) for one in data.draw(st.lists(st.sampled_from(earlier), max_size=1))}
            if earlier
            else set()
        )
        before = {node(one) for one in going if one > name}
        if name in going:
            steps.append(Step(node(name), used={source.node, *before}, last=True))
        else:
            steps.append(Step(node(name), uses={source.node, *after}, used={source.node}))
    order = ordered(data.draw(st.permutations(steps)))
    assert sorted(order) == sorted(step.node for step in steps)
    last = {step.node for step in steps if step.last}
    for step in steps:
        for used in (step.uses | step.used) & last:
            assert order.index(step.node) < order.index(used)
        for used in step.uses - last:
            assert order.index(used) < order.index(step.node)
