"""What another user without the token gets from a run's ports: `python stranger.py '{"user": ..., "gcs": ..., "ports": [...]}'`.

It becomes that user after its imports, for other users may not see this Python. It prints one JSON object: for each port what
answered to gRPC calls and HTTP requests, and what `ray.init` said.
"""

import http.client
import json
import os
import sys
import traceback

import grpc
import ray
import ray._private.runtime_env.uv_runtime_env_hook

CALLS = (
    "ray.rpc.JobInfoGcsService/GetAllJobInfo",
    "ray.rpc.NodeInfoGcsService/GetAllNodeInfo",
    "ray.rpc.InternalKVGcsService/InternalKVGet",
    "ray.rpc.NodeManagerService/GetNodeStats",
    "ray.rpc.ObjectManagerService/Pull",
    "ray.rpc.CoreWorkerService/GetCoreWorkerStats",
    "ray.rpc.ReporterService/ReportOCMetrics",
    "ray.rpc.events.EventAggregatorService/AddEvents",
)
PATHS = ("/", "/metrics", "/get_runtime_envs_info", "/api/job_agent/jobs/")


def called(port: int) -> list[str]:
    """The status of each gRPC call to the port, OK where one was answered."""
    codes = set()
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.enable_http_proxy", 0)]) as channel:
        for name in CALLS:
            try:
                channel.unary_unary(f"/{name}")(b"", timeout=10)
                codes.add("OK")
            except grpc.RpcError as error:
                codes.add(error.code().name)
    return sorted(codes)


def requested(port: int) -> list[int]:
    """The HTTP status of each path; empty where no HTTP server answers."""
    found = set()
    for path in PATHS:
        for method in ("GET", "POST"):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            try:
                connection.request(method, path)
                found.add(connection.getresponse().status)
            except (OSError, http.client.HTTPException):
                pass
            finally:
                connection.close()
    return sorted(found)


def ran_a_task(gcs: str) -> str:
    """What comes of a task: `it ran`, `refused`, or another error."""
    try:
        ray.init(address=gcs, log_to_driver=False, configure_logging=False)
        return str(ray.get(ray.remote(lambda: "it ran").remote()))
    except Exception as error:
        told = "".join(traceback.format_exception(error))
        return "refused" if "InvalidAuthToken" in told else told


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    if asked["user"] != os.getuid():
        os.setgroups([])
        os.setgid(asked["user"])
        os.setuid(asked["user"])
    answers = {port: {"grpc": called(port), "http": requested(port)} for port in asked["ports"]}
    print(json.dumps({"user": os.getuid(), "task": ran_a_task(asked["gcs"]), "ports": answers}))
