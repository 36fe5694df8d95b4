"""What is on disk: verified blobs, the partial files of running fills, and the index of what we know of them.

blobs.py    whole, verified content; what is bad of it (bad_files, integrity, contents)
fills/      fetches of blobs into the store, and the ways that bytes take into a partial file, or past the disk
index/      tags, links, uses, the books: SQLite, with one writer
room/       how much there may be, what goes when it is needed, and what is in use
scrub/      all that is stored, read and hashed again
locks.py    who else uses the folder
"""
