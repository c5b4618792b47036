"""Amplitude as the sandbox imitates it: projects, cohorts, downloads and their files."""
