"""The shared vocabulary, `wfpstream.fwp`."""
