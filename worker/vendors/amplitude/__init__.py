"""Amplitude's Behavioral Cohorts API."""
