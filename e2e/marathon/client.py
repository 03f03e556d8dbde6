"""What a program does with marathon-python, and what comes of it, a line each: `client.py http://HOST:PORT`.

The library knows no pods; they are sent over its own connection. Everything else are its calls and its classes.
"""

import json
import queue
import sys
import threading

from marathon import MarathonClient, NotFoundError
from marathon.models.events import (
    MarathonAppTerminatedEvent,
    MarathonDeploymentFailed,
    MarathonDeploymentSuccess,
    MarathonEventStreamAttached,
)

PATIENCE = 60


class Events:
    """Reads the stream, and hands on what the library made of each event."""

    def __init__(self, client):
        self.waiting = queue.Queue()
        self.seen = set()
        threading.Thread(target=self.listen, args=[client], daemon=True).start()

    def listen(self, client):
        try:
            for event in client.event_stream():
                self.waiting.put(event)
        except Exception as error:
            self.waiting.put(error)

    def until(self, kind, **wanted):
        while True:
            event = self.waiting.get(timeout=PATIENCE)
            if isinstance(event, Exception):
                raise event
            self.seen.add(type(event).__name__)
            if isinstance(event, kind) and all(getattr(event, name) == value for name, value in wanted.items()):
                return


def pod(mem):
    container = {"name": "c", "exec": {"command": {"shell": "exec sleep 1000"}}, "resources": {"cpus": 0.1, "mem": mem}}
    return json.dumps({"id": "/g/web", "containers": [container], "networks": [{"mode": "host"}]})


def main():
    client = MarathonClient(sys.argv[1])
    events = Events(client)
    events.until(MarathonEventStreamAttached)
    print("ping", client.ping().decode())
    info = client.get_info()
    print("info", info.name, info.elected, info.marathon_config.mesos_role, info.leader == client.get_leader()["leader"])
    print("metrics", sorted(set(client.get_metrics()) & {"counters", "gauges", "histograms"}))
    print("apps and tasks", client.list_apps(), client.list_tasks(), client.list_endpoints())

    created = client._do_request("POST", "/v2/pods", data=pod(32))
    events.until(MarathonDeploymentSuccess, id=created.headers["Marathon-Deployment-Id"])
    print("groups", [group.id for group in client.list_groups()], client.get_group("g").id)
    print("queue", client.list_queue(), client.list_deployments())

    # More than there is: the deployment can only be taken back.
    client._do_request("PUT", "/v2/pods/g/web", params={"force": True}, data=pod(99_000_000))
    [deployment] = client.list_deployments()
    action = deployment.steps[0].actions[0]
    print("deployment", deployment.affected_pods, action.action, action.pod, deployment.total_steps)
    taken_back = client.delete_deployment(deployment.id)
    events.until(MarathonDeploymentFailed, id=deployment.id)
    events.until(MarathonDeploymentSuccess, id=taken_back["deploymentId"])

    client._do_request("DELETE", "/v2/pods/g/web", params={"force": True})
    events.until(MarathonAppTerminatedEvent, app_id="/g/web")
    print("groups", client.list_groups())
    for ask in (client.get_app, client.get_group, client.reset_delay, client.delete_deployment):
        try:
            print(ask("nothing"))
        except NotFoundError as error:
            print("refused", error)
    print("leader", client.delete_leader()["message"])
    for name in sorted(events.seen):
        print("saw", name)


main()
