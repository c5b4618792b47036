"""HTTP to the vendors: one client each, and the transport, rate limits and back-off that both share.

No other package sends a request to a vendor.
"""
