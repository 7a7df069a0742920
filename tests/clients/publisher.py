"""Publishes numbered messages with paho, through any number of lost connections.

Says "acked N" when the broker has acknowledged N messages to the end (PUBACK or PUBCOMP), each
hundred and at the end, "lost" when the connection is lost, and "done" after the last one.
"""

import argparse
import socket
import threading
import time

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

parser = argparse.ArgumentParser()
parser.add_argument("--host", required=True)
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--version", type=int, choices=[4, 5], required=True)
parser.add_argument("--qos", type=int, required=True)
parser.add_argument("--count", type=int, required=True)
parser.add_argument("--topic", required=True)
parser.add_argument("--transport", choices=["tcp", "websockets"], default="tcp")
parser.add_argument("--cafile")
args = parser.parse_args()

# paho sends all that it holds when it connects again, whatever the broker's Receive Maximum: so it
# is given no more than that allows.
WINDOW = 50

acked = 0
done = threading.Event()
over = threading.Event()
room = threading.Semaphore(WINDOW)


def on_publish(client, userdata, mid, reason_code, properties):
    global acked
    # A PUBREL that is sent again may find its exchange completed: the broker has the message.
    if reason_code.is_failure and reason_code != "Packet identifier not found":
        print(f"refused {mid}: {reason_code}")
        return
    acked += 1
    room.release()
    if acked % 100 == 0 or acked == args.count:
        print(f"acked {acked}")
    if acked == args.count:
        done.set()


def on_disconnect(client, userdata, flags, reason_code, properties):
    print("lost")
    over.set()


# An attempt of paho to connect again that fails makes it forget which messages wait for a PUBCOMP
# alone: the next attempt that succeeds publishes those anew, under packet identifiers that the
# broker may have released (paho 2.2, `_messages_reconnect_reset_out`). So it may only try when
# somebody listens.
def listening():
    try:
        socket.create_connection((args.host, args.port), timeout=1).close()
        return True
    except OSError:
        return False


def run():
    while True:
        client.loop_start()
        over.wait()
        over.clear()
        client.loop_stop()
        if done.is_set():
            return
        while not listening():
            time.sleep(0.05)
        client.reconnect()


five = args.version == 5
client = mqtt.Client(
    mqtt.CallbackAPIVersion.VERSION2,
    client_id="publisher",
    clean_session=None if five else False,
    transport=args.transport,
    protocol=mqtt.MQTTv5 if five else mqtt.MQTTv311,
    reconnect_on_failure=False,
)
client.on_publish = on_publish
client.on_disconnect = on_disconnect
# While paho connects again it has no thread, and then `publish` writes what is queued itself: two
# threads at once in the one buffer of a WebSocket spoil its frames. With this set, whoever waits for
# the socket does all the writing, which is the loop.
client.on_socket_register_write = lambda client, userdata, sock: None
client.max_inflight_messages_set(WINDOW)
if args.cafile:
    client.tls_set(ca_certs=args.cafile)
options = {}
if five:
    options["clean_start"] = False
    options["properties"] = Properties(PacketTypes.CONNECT)
    options["properties"].SessionExpiryInterval = 3600
client.connect(args.host, args.port, keepalive=60, **options)
loop = threading.Thread(target=run)
loop.start()
for number in range(args.count):
    room.acquire()
    client.publish(args.topic, str(number), qos=args.qos)
done.wait()
client.disconnect()
loop.join()
print("done")
