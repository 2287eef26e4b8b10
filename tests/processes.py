"""Where tests start processes: from a server that has imported what they need, never as forks of the tests' process.

Of that one's threads a fork has none, and may wait for them forever; its pipes it keeps open, so that a run of many
workers would wait too.
"""

import multiprocessing

processes = multiprocessing.get_context("forkserver")
# One server for all tests of a process: the last list that is set is the one that counts.
processes.set_forkserver_preload(
    ["mtl_rank.scoring.sink", "mtl_rank.scoring.parquet_sink", "mtl_rank.tuning.journal", "numpy"]
)
