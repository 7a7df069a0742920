"""Subscribes with paho and a session that is kept, through any number of lost connections.

Says "subscribed" when the broker has acknowledged the subscription, "session lost" if a
connection finds none where there was one, and "got PAYLOAD" for each message.
"""

import argparse

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

parser = argparse.ArgumentParser()
parser.add_argument("--host", required=True)
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--version", type=int, choices=[4, 5], required=True)
parser.add_argument("--qos", type=int, required=True)
parser.add_argument("--topic", required=True)
parser.add_argument("--transport", choices=["tcp", "websockets"], default="tcp")
parser.add_argument("--cafile")
args = parser.parse_args()

connected_before = False


def on_connect(client, userdata, flags, reason_code, properties):
    global connected_before
    if reason_code.is_failure:
        print(f"refused: {reason_code}")
        return
    if connected_before and not flags.session_present:
        print("session lost")
    if not connected_before:
        client.subscribe(args.topic, qos=args.qos)
    connected_before = True


def on_subscribe(client, userdata, mid, reason_codes, properties):
    print("subscribed")


def on_message(client, userdata, message):
    print(f"got {message.payload.decode()}")


five = args.version == 5
client = mqtt.Client(
    mqtt.CallbackAPIVersion.VERSION2,
    client_id="subscriber",
    clean_session=None if five else False,
    transport=args.transport,
    protocol=mqtt.MQTTv5 if five else mqtt.MQTTv311,
)
client.on_connect = on_connect
client.on_subscribe = on_subscribe
client.on_message = on_message
client.reconnect_delay_set(min_delay=0.05, max_delay=0.5)
if args.cafile:
    client.tls_set(ca_certs=args.cafile)
options = {}
if five:
    options["clean_start"] = False
    options["properties"] = Properties(PacketTypes.CONNECT)
    options["properties"].SessionExpiryInterval = 3600
client.connect(args.host, args.port, keepalive=60, **options)
client.loop_forever(retry_first_connection=True)
