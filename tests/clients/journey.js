// The journey of `clients.rs` with MQTT.js. Arguments: URL, version (4 or 5), client identifier.
"use strict";

const mqtt = require("mqtt");

const [url, version, name] = process.argv.slice(2);
const five = version === "5";

function connect() {
  return mqtt.connect(url, {
    clientId: name,
    clean: false,
    protocolVersion: Number(version),
    reconnectPeriod: 0,
    properties: five ? { sessionExpiryInterval: 60 } : undefined,
    will: { topic: `will/${name}`, payload: "gone", qos: 1, retain: false },
  });
}

function fail(error) {
  console.log(`failed: ${error}`);
  process.exit(1);
}

const first = connect();
let got = 0;
first.on("error", fail);
first.on("connect", () => {
  console.log("connected");
  const filters = {};
  for (const qos of [0, 1, 2]) filters[`c/${name}/${qos}`] = { qos };
  first.subscribe(filters, (error, granted) => {
    if (error || granted.some((one, qos) => one.qos !== qos)) fail(error || "not granted");
    for (const qos of [0, 1, 2]) {
      first.publish(`c/${name}/${qos}`, "live", { qos }, (failed) => failed && fail(failed));
    }
  });
});
first.on("message", (topic, payload, packet) => {
  console.log(`got ${packet.qos} ${payload}`);
  got += 1;
  if (got === 3) setTimeout(leave, 200);
});

function leave() {
  first.on("close", () => setTimeout(comeBack, 1000));
  console.log("left");
  first.stream.destroy();
}

function comeBack() {
  const second = connect();
  second.on("error", fail);
  second.on("connect", (connack) => {
    if (connack.sessionPresent) console.log("session present");
  });
  second.on("message", (topic, payload, packet) => {
    console.log(`got ${packet.qos} ${payload}`);
    second.end(false, () => {
      console.log("done");
      process.exit(0);
    });
  });
}
