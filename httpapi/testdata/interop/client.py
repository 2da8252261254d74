"""One conversation over websocket-client; see interop_test.go. Usage: client.py <url> <driver>"""
import json
import struct
import sys

import websocket

url, driver = sys.argv[1:]
here = {"latitude": 24.86, "longitude": 67.01}
socket = websocket.create_connection(url, timeout=10, subprotocols=["dray.v1.json"])


def next_frame(kind):
    """The next frame of this type; frames of another type before it are dropped."""
    while True:
        frame = json.loads(socket.recv())
        if frame["type"] == "error":
            raise RuntimeError(frame)
        if frame["type"] == kind:
            return frame


def send(**frame):
    socket.send(json.dumps(frame))  # escapes what is not ASCII


def position(seq):
    send(type="position", driver=driver, latitude=here["latitude"] + seq / 1e5, longitude=here["longitude"],
         accuracy=None, attributes={"status": "frei – überall"}, seq=seq)


welcome = next_frame("welcome")
print("welcome", socket.getsubprotocol(), welcome["heartbeatMs"])

for seq in range(1, 21):
    position(seq)
ack = next_frame("ack")
while ack["seq"] < 20:
    ack = next_frame("ack")
print("ack", ack["seq"])

send(type="subscribe", id="near", nearby=dict(here, radius=1000), filter={"status": ["frei – überall"]}, intervalMs=0)
snapshot = next_frame("snapshot")
first = snapshot["drivers"][0]
print("snapshot", snapshot["id"], len(snapshot["drivers"]), first["driver"], first["attributes"]["status"])

position(21)
delta = next_frame("delta")
print("delta", delta["id"], str(delta["version"] > snapshot["version"]).lower(), len(delta["moved"]), delta["moved"][0]["latitude"])

send(type="nearby", id=7, **here, radius=1000, limit=5)
result = next_frame("result")
print("result", result["id"], len(result["drivers"]), round(result["drivers"][0]["distance"]))

socket.ping("still there?")
opcode, data = socket.recv_data(control_frame=True)
while opcode != websocket.ABNF.OPCODE_PONG:
    opcode, data = socket.recv_data(control_frame=True)
print("pong")

socket.send_close(1000, b"done")
opcode, data = socket.recv_data(control_frame=True)
while opcode != websocket.ABNF.OPCODE_CLOSE:
    opcode, data = socket.recv_data(control_frame=True)
print("closed", struct.unpack("!H", data[:2])[0], data[2:].decode())
socket.shutdown()
