"""Heddle's processes on one machine: what `./heddle up` and the tests start them with.

Standard library only: on a fresh machine there is nothing else yet.
"""
