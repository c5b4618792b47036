"""Everything the sandbox knows, in one object, and how it looks at the start.

No HTTP in here. One seed decides every id, every person and every roll of the dice.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from sandbox import presets
from sandbox.amplitude.cohorts import defaults
from sandbox.amplitude.project import EU_KEYS, KEYS, Project
from sandbox.clock import Clock
from sandbox.faults import Faults
from sandbox.marketing_cloud.jobs import Jobs
from sandbox.marketing_cloud.tenant import CLIENT_ID, CLIENT_SECRET, Package, Tenant, default_extension
from sandbox.switches import Switches
from sandbox.traffic import Traffic


class World:
    """Both vendors' state, the faults, the switches, the log."""

    def __init__(
        self,
        *,
        seed: int = 0,
        members: int = 1000,
        switches: Mapping[str, Any] | None = None,
        faults: Sequence[str] = (),
        files_port: int = 0,
        clock: Clock | None = None,
    ) -> None:
        self.seed = seed
        self.members = members
        self.files_port = files_port
        self.clock = clock or Clock()
        self._switches = dict(switches or {})
        self._faults = tuple(faults)
        self.traffic = Traffic()
        self.crashes: list[str] = []
        self.reset()

    def reset(self) -> None:
        """Back to how it started, the clock apart: time only goes forward."""
        now = self.clock.now()
        rng = random.Random(f"world {self.seed}")
        self.rng = rng
        self.switches = Switches()
        self.faults = Faults(random.Random(f"faults {self.seed}"))
        rules: list[Mapping[str, Any]] = []
        for name in self._faults:
            preset = presets.named(name)
            self.switches.update(preset.switches)
            rules.extend(preset.rules)
        self.faults.replace(rules)
        self.switches.update(self._switches)
        self.project = Project(rng, self.switches, [KEYS, EU_KEYS], defaults(self.seed, self.members, now))
        self.tenant = Tenant(rng, self.switches, Jobs(self.switches, rng))
        self.tenant.packages[CLIENT_ID] = Package(CLIENT_ID, CLIENT_SECRET)
        self.tenant.extensions.append(default_extension(self.tenant, now))
        self.traffic.clear()

    def settle(self) -> None:
        """Carry out what has become due."""
        self.tenant.jobs.settle(self.clock.now())
