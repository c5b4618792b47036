"""Flower in production, named by FLOWER_CONF. Address, port and password are cohort-sync's own settings."""  # noqa: INP001 - a file that Flower reads, not a module

# Behind a proxy that ends TLS: trust its X-Real-Ip and X-Scheme.
xheaders = True
# A worker that has gone is forgotten after an hour, by the page and by /metrics.
purge_offline_workers = 3600
max_tasks = 20_000
# A stage takes from a tenth of a second to minutes.
task_runtime_metric_buckets = [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0]
tasks_columns = "name,args,state,received,started,runtime,worker,uuid"
