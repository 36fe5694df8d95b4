"""Several processes for one cache: one of them, the host, decides, fetches and keeps the books; others serve beside it.

    supervisor   starts the processes, and starts anew what has died
      host       the whole cache as it is with one process, and serves clients, too
      server ... takes connections from the same sockets; asks the host, by a `Link`, what to answer; sends the bytes

A server holds no opinion. What it is asked goes to the host as it came (`asking`, `desk`, `far`). The answer comes
back, and of a large blob an open file, from which the server sends at the pace of its client while the fill goes on. So
one fill, one quota, one freshness and one set of books serve all, as they do in one process, and what costs most with
many clients is spread over all cores: connections, TLS and bodies. Answers that may be given again are given again by
the server itself (`server.memo`), while the `board` says that nothing has changed.

When the host dies, whoever is served by a server keeps its connection: the next host is asked the same, from where the
body stopped, and goes on with the partial file that the last one left. When a server dies, its connections die with it.
"""
