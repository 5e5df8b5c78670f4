"""Thin nipype interfaces: load, call, save.

Nothing is computed here. Each interface reads images, calls one function of
:mod:`qsmref.reconstruction` or :mod:`qsmref.analysis`, and writes what it returns; what the
function tells of itself (``info``) becomes a JSON file for the sidecar.
"""

from __future__ import annotations

import os

# nipype asks a server for its newest version when it is imported, unless told not to.
os.environ.setdefault("NIPYPE_NO_ET", "1")
