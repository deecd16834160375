"""Destinations of releases, and which version is served there. `data_schemas.releases` has the layout of a folder or URI.

address ─▶ FolderPlace  (folder.py)    staged, synced, renamed; the pointer replaced
        ─▶ ObjectPlace  (objects.py)   any fsspec URI: final names, manifest last, the pointer swapped
        ─▶ HubPlace     (hub.py)       one commit or pull request, and a tag
delivery.py copies a release to all of its destinations, pointer.py says which version is served, and history.py lists versions and
goes back to one.
"""
