"""The scenario catalogue (SC-*), one test function per scenario, named after it."""
