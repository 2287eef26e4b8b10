"""In which arithmetic a job predicts: the run's own, where this processor has it."""

from mtl_rank.runs import Run
from mtl_rank.training.precision import Precision, cpu_has_bf16, load_precision


def scoring_precision(run: Run) -> Precision:
    """What a run was trained in; fp32 where that was bf16 and the processor has no instructions for it.

    It does not depend on the size of a job: a score must be the same to the last bit in any.
    """
    trained = load_precision(run.info().get("precision")) or Precision("fp32")
    if trained.name == "bf16" and not cpu_has_bf16():
        return Precision("fp32", trained.matmul)
    return trained
