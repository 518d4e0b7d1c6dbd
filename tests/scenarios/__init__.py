"""The scenario catalogue (SC-*), one test function per scenario, named after it."""

import pytest

pytest.register_assert_rewrite("tests.scenarios.support")
