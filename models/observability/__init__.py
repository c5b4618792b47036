"""What is reported about the work: alerts, notices and their deliveries, health, and the queries behind metrics.

Everything here is derived from the rows of setup and runs. No sync reads it.
"""
