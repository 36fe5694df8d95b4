"""What is on disk: verified blobs, the partial files of running fills, and the index of what we know of them."""
