"""Names of what can be chosen for regions and references; the command line lists them unloaded."""

from __future__ import annotations

#: Measures of level that a difference can be made of.
STATISTICS = ("mean", "median")
#: Where the reference ``csf`` comes from, see :func:`qsmref.analysis.tissues.tissue_masks`.
CSF_SOURCES = ("auto", "labels", "r2star", "none")
#: Atlases that a name is enough for, see :func:`qsmref.atlases.fetch_cit168`.
ATLASES_BY_NAME = ("CIT168",)
