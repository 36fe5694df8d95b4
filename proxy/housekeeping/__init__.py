"""Keeping house: what an operator sees of the store, and what they have removed or protected.

What the words mean here:

- A repository *holds* a blob when one of its manifests names it, or upstream has shown that it is there, and its bytes
  are on disk. What several repositories hold is on disk once, and *shared*.
- `purge` of a tag forgets the tag, and of what it points to (now and before) whatever nothing else in this repository
  needs: other tags, and manifests that were pulled by digest. `purge` of a digest forgets that one whoever needs it,
  and the tags that point to it. Bytes go when no other repository holds them. History stays: it says what a tag was.
- `purge` of a repository forgets all that is known of it, history included. Its pin stays: it is a wish, not knowledge.
- `purge --older-than` removes bytes that were not used for so long, but nothing that a pinned repository holds or that
  is being sent or fetched. Tags and links stay, as they do when blobs are evicted.
- Whoever is being sent something that is purged gets it to its end, and a fill that runs goes on.

Everything is read in a thread, a page at a time, on a connection of its own, and bytes are removed a few hundred blobs
at a time, so that neither the event loop nor a pull waits for it. Times are seconds since the epoch, by the clock of
the cache; every document has `now`, so that ages can be told wherever it is read.
"""
