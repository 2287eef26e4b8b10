"""KuaiRand-Pure as a project: real impressions of a short-video app with several labels each."""

from mtl_rank.datasets.kuairand.importer import KuaiRandSummary, import_kuairand

__all__ = ["KuaiRandSummary", "import_kuairand"]
