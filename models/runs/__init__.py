"""The life of runs: made when due, claimed under a fence, their batches journalled, ended, retried and followed.

The run row is the truth and a queue message is only a wake-up: a message can be lost, doubled or late, and a row can't.
"""
