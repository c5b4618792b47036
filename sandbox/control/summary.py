"""What `/_sandbox/state` shows: counts and configuration, never a contact key and never a secret's use."""

from __future__ import annotations

from typing import Any

from sandbox.clock import iso
from sandbox.world import World

_JOBS_SHOWN = 200


def state_of(world: World) -> dict[str, Any]:
    """The whole state as one document."""
    now, project, tenant = world.clock.now(), world.project, world.tenant
    jobs = list(tenant.jobs.known.values())
    return {
        "now": iso(now),
        "seed": world.seed,
        "amplitude": {
            "region": world.switches.region,
            "downloads_used": project.usage(now),
            "quota": world.switches.amplitude_monthly_quota,
            "refused_by_limit": project.refusals,
            "downloads": [
                {
                    "request_id": d.request_id,
                    "cohort_id": d.cohort_id,
                    "rows": len(d.snapshot),
                    "complete": d.complete(now),
                }
                for d in list(project.downloads.values())[-_JOBS_SHOWN:]
            ],
            "cohorts": {c.id: {"name": c.name, "members": len(c)} for c in project.cohorts.values()},
        },
        "marketing_cloud": {
            "tokens_issued": tenant.tokens_issued,
            "jobs_accepted": len(jobs),
            "jobs": [j.describe(now) for j in jobs[-_JOBS_SHOWN:]],
            "warnings": tenant.jobs.warnings[-_JOBS_SHOWN:],
            "data_extensions": {
                d.name: {**d.describe(), "in_flight": tenant.jobs.in_flight(d, now)}
                for d in tenant.extensions
            },
        },
        "faults": [r.describe() for r in world.faults.rules],
        "switches": vars(world.switches),
        "requests": world.traffic.seq,
        "crashes": world.crashes,
    }
