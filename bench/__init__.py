"""The benchmark: us, nginx `proxy_cache` and `docker-registry` on the same work, interleaved in one run."""
