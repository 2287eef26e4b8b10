"""What the Python API and the command line call: from a project to runs, scores and pages."""

from mtl_rank.workflow.evaluation import compare, describe_model, evaluate, inspect, report
from mtl_rank.workflow.project import check, inputs
from mtl_rank.workflow.scoring import export, score
from mtl_rank.workflow.training import resume, train
from mtl_rank.workflow.tuning import tune

__all__ = [
    "check",
    "compare",
    "describe_model",
    "evaluate",
    "export",
    "inputs",
    "inspect",
    "report",
    "resume",
    "score",
    "train",
    "tune",
]
