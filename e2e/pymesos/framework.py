"""A framework as pymesos' own documentation writes one: registers, launches one command task, says how it ended.

usage: framework.py MASTER COMMAND        prints `TASK_STARTING`, `TASK_RUNNING`, … as they come
"""

import getpass
import sys
import threading

from addict import Dict
from pymesos import MesosSchedulerDriver, Scheduler

ENDED = {"TASK_FINISHED", "TASK_FAILED", "TASK_KILLED", "TASK_LOST", "TASK_ERROR"}


class OneTask(Scheduler):
    def __init__(self, command):
        self.command = command
        self.launched = False
        self.ended = threading.Event()

    def registered(self, driver, framework_id, master_info):
        print("registered", flush=True)

    def resourceOffers(self, driver, offers):
        for offer in offers:
            if self.launched:
                driver.declineOffer(offer.id)
                continue
            task = Dict()
            task.task_id.value = "one-task"
            task.agent_id.value = offer.agent_id.value
            task.name = "one task"
            task.resources = [
                {"name": "cpus", "type": "SCALAR", "scalar": {"value": 0.1}},
                {"name": "mem", "type": "SCALAR", "scalar": {"value": 32}},
            ]
            task.command.value = self.command
            driver.launchTasks(offer.id, [task], {"refuse_seconds": 1})
            self.launched = True

    def statusUpdate(self, driver, update):
        print(update.state, update.get("message", ""), flush=True)
        if update.state in ENDED:
            self.ended.set()

    def error(self, driver, message):
        print("error", message, flush=True)
        self.ended.set()


def main():
    scheduler = OneTask(sys.argv[2])
    framework = Dict(user=getpass.getuser(), name="pymesos", hostname="localhost")
    driver = MesosSchedulerDriver(scheduler, framework, sys.argv[1], use_addict=True)
    driver.start()
    ended = scheduler.ended.wait(60)
    driver.stop()
    driver.join()
    sys.exit(0 if ended else 1)


main()
