"""Tests of one cluster that serves: it is started once for all of them."""
