"""Ports of WFP's sample drivers, faults included, and tests that run them unchanged against the engine.

They are written from the behaviour the samples are described by, in a driver's plain style: structures, functions,
status codes, no comfortable base class.
"""
