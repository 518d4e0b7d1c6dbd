"""Tests of the live drivers and of the sockets below them."""
