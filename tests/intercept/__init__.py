"""Interception: plans, rules, records, and what is done with them."""
