"""Both vendors on localhost over real HTTP: Amplitude's cohort API and Marketing Cloud Engagement.

It stands in for the real thing in tests, in the demo and in benchmarks, so it is written from the
vendors' recorded facts and never from our own client: it imports nothing of ours, and where the
vendors are ugly it is ugly in the same way. What nobody could establish is a switch
(`sandbox.switches`), so that a client can be held against both answers. Everything a test wants to
arrange or to look at stands behind one door without a lock, `/_sandbox/...` (`sandbox.control.routes`).

It must never be reachable from outside a developer's machine or a test network: its credentials are
public and its door is open.
"""
