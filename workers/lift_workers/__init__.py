"""The training workers: claim a job, write synthetic tasks about its document, train an adapter, publish it.

One process per GPU. The supervisor (worker, jobs, pipeline, trainer) never imports torch; its child does.
"""
