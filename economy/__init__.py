"""A CI day, replayed against an upstream that counts pulls: what it costs with and without caches.

    workload.py    the day: images, tags that move, jobs, an outage; and the fewest pulls it can be done with
    pace.py        how much faster than on the clock on the wall the day passes
    goods.py       the images of the day, on a Docker-Hub-like upstream
    clients.py     clients that pull as dockerd and containerd do
    rivals.py      the caches, how each is configured, and the process it runs in; cache.py is ours
    findings.py    what clients saw and upstream counted
    replay.py      one day with one rival
    table.py       the figures as Markdown; plot.py draws them

Run it with `python -m economy`, or `make economy`.
"""
