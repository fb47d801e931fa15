"""Tests of ``browserkeeper.pytest_plugin``.  Nearly all run an inner pytest (support/inner_pytest.py).

Without a browser: test_cost, test_usage_errors, test_output_folder, test_ownership, part of test_leaks.
With real browsers: test_fixtures, test_capture, test_leaks, test_other_plugins.
"""
