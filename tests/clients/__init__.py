"""The real clients against the real thing: a real registry upstream, our process between them, one loopback.

Everything here needs root and Debian's docker.io, containerd, podman, skopeo, buildah, docker-registry, busybox-static
and prometheus. What is missing is skipped with its package's name, or fails with PULLTHROUGH_REQUIRE_CLIENTS=1.
No client can reach the internet, so that a pull which the cache failed has failed.

Nothing of the host's engines, images or settings is used or changed, but for what the programs keep outside of the
folders they are given: containers/image its cache of digests (/var/lib/containers/cache), and a few empty folders
below /run.
"""
