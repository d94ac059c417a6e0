"""One worker whose model is shared out among several processes of one node: tensor parallelism.

To everybody else it is one worker, which is rank 0: one scheduler, one link, one incarnation. The other ranks are
*followers*, child processes that compute the same slices on their part of the heads (`runner`, `follower`) and pull
their part of the KV (`transfer`). `crew` starts and ends them; `sharding` says which part of the model is whose.
"""
