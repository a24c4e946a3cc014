"""The queue: jobs in plain files, a runner that starts them in order, and a keeper beside each run.

    job        one job and its attempts, as its file holds them
    store      the folder of the queue: add, list, pause, resume, remove
    rules      what an exit code means, and which job is next: pure functions
    runner     the one process that starts jobs and settles what became of them
    keeper     the process that starts one run, holds the job's lock and writes down the exit code
    view       progress, reasons and errors, for people and scripts
    lock       locks of the operating system

The folder, in the user's folder for what is kept of runs:

    queue/queue.json      last number given, paused or not
    queue/lock            held while jobs are changed
    queue/runner.lock     held by the runner; runner.json says which process it is, runner.log what it did
    queue/7/job.json      the job; written last, so that a folder without it is none
    queue/7/config.yaml, environment.json     what it runs with
    queue/7/lock          held by the keeper and by the run itself, as long as one of them lives
    queue/7/2.process.json, 2.exit.json, 2.log     of its second attempt, by the keeper
"""
