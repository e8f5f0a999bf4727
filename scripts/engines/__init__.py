"""Fetch, verify, unpack and patch the sources of the engines that thirdparty/engines.lock.toml names."""
