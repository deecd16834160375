"""Where releases go, and which of their versions is the current one there.

address ─▶ FolderPlace  (folder.py)    staged, synced, renamed; the pointer replaced
        ─▶ ObjectPlace  (objects.py)   any fsspec URI: final names, manifest last, the pointer swapped
        ─▶ HubPlace     (hub.py)       one commit or pull request, and a tag
delivery.py copies a release to all of its destinations; pointer.py says which version is served; history.py lists versions and
goes back to one.

A folder and a URI hold what the storage's own `releases/` holds:
<place>/<name>/versions/<digest>/   immutable
<place>/<name>/current              one small file with the digest of the version that is served
<place>/<name>/rolled_back          digests that a rollback left and publishing does not serve again; see pointer.py
"""
