"""The quickstart's dialogue in Python: writes two secrets, reads them back, prints them."""

import json
import os
import socket
import sys

TARGETS = ["python/OPENAI_API_KEY", "python/AWS_SECRET_KEY"]
VALUES = ["sk-proj-456", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"]

connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
connection.connect(os.path.join(os.environ["XDG_RUNTIME_DIR"], "keychain-auth", "agent.sock"))
replies = connection.makefile("r", encoding="utf-8")


def ask(**request):
    line = json.dumps({"type": "REQUEST", "service": "agentsecrets", "targets": TARGETS, **request})
    connection.sendall(line.encode() + b"\n")
    return json.loads(replies.readline())


reply = ask(action="write", values=VALUES)
if reply["status"] != "success":
    print("Write denied:", reply["reason"])
    sys.exit(0)
for result in ask(action="read")["results"]:
    print(result["target"], result["value"])
