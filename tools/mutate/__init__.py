"""Faults put into the package one at a time, each to be caught by a test that runs through it.

mutmut changes no decorated function (a property, a context manager) and leaves no statement out, and cosmic-ray changes
the checkout itself and runs one command for all; so mutants are made here, and probes say which tests to run.
"""
