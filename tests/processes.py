"""Where tests start processes: from a server that has imported what they need, never as forks of the tests' process.

Of that one's threads a fork has none, and may wait for them forever; its pipes it keeps open, so that a run of many
workers would wait too. What is imported only when first used, numpy.random or pandas, is imported there as well: an
extension module that is being imported may swallow Ctrl-C.
"""

import multiprocessing

processes = multiprocessing.get_context("forkserver")
# One server for all tests of a process: the last list that is set is the one that counts.
processes.set_forkserver_preload(
    [
        "mtl_rank.scoring.sink",
        "mtl_rank.scoring.parquet_sink",
        "mtl_rank.tuning.journal",
        "numpy.random",
        "pandas",
    ]
)
