"""Step 1: which files the sources consist of, on local disks (`local_files`) and behind fsspec URIs (`remote_files`), without
those that a repository's `gitignore` leaves out. `sources` puts them in one order."""
