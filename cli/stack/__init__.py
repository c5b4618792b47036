"""The whole product on one machine: supervised processes, the embedded queue, ports, the lock of the data directory.

An own supervisor, because children must not outlive a killed parent (`parent_death`), must be restarted with bounded
back-off, and must take over open ports and the lock of the data directory: no library offers the three together.
"""
