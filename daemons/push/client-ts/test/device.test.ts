/**
 * The device against mosquitto, over TCP, since not every mosquitto has WebSockets: what another
 * client publishes, and what it sees of the device.
 */
import assert from "node:assert/strict";
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { createConnection, createServer, type AddressInfo, type Server } from "node:net";
import { test, type TestContext } from "node:test";

import mqtt, { type MqttClient } from "mqtt";

import { Device, SeenIds, type DeviceOptions } from "../src/device.js";
import { Outbox } from "../src/outbox.js";

const PUSH = "d/phone-1/push";

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

function canConnect(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = createConnection(port, "127.0.0.1");
    socket.once("connect", () => resolve(true)).once("error", () => resolve(false));
    socket.once("connect", () => socket.destroy());
  });
}

/** A broker, and a client that publishes and watches. */
class Broker {
  readonly port: number;
  readonly client: MqttClient;
  readonly seen = new Queue<{ topic: string; payload: unknown }>();
  readonly #child: ChildProcess;

  private constructor(port: number, child: ChildProcess, client: MqttClient) {
    this.port = port;
    this.#child = child;
    this.client = client;
  }

  static async start(t: TestContext): Promise<Broker> {
    const port = await freePort();
    const path = `${process.env["PATH"]}:/usr/sbin`;
    const env = { ...process.env, PATH: path };
    const child = spawn("mosquitto", ["-p", String(port)], { stdio: "ignore", env });
    const until = Date.now() + 10_000;
    while (!(await canConnect(port))) {
      assert.equal(child.exitCode, null, "mosquitto runs");
      assert.ok(Date.now() < until, "mosquitto listens");
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    const client = await mqtt.connectAsync(`mqtt://127.0.0.1:${port}`, { reconnectPeriod: 0 });
    const broker = new Broker(port, child, client);
    client.on("message", (topic, payload) => {
      broker.seen.push({ topic, payload: JSON.parse(payload.toString()) });
    });
    await client.subscribeAsync(["d/+/receipts", "d/+/topics"], { qos: 1 });
    t.after(() => broker.end());
    return broker;
  }

  async publish(...payloads: unknown[]): Promise<void> {
    for (const payload of payloads) {
      await this.client.publishAsync(PUSH, JSON.stringify(payload), { qos: 1 });
    }
  }

  async end(): Promise<void> {
    this.client.end(true);
    if (this.#child.exitCode === null && this.#child.signalCode === null) {
      const exited = once(this.#child, "exit");
      this.#child.kill("SIGKILL");
      await exited;
    }
  }
}

/** What came, and who waits for it. */
class Queue<T> {
  readonly #items: T[] = [];
  #wanted: (() => void) | null = null;

  push(item: T): void {
    this.#items.push(item);
    this.#wanted?.();
  }

  async next(): Promise<T> {
    if (this.#items.length === 0) {
      await new Promise<void>((resolve, reject) => {
        const timer = setTimeout(() => reject(new Error("nothing comes in time")), 10_000);
        this.#wanted = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
    return this.#items.shift()!;
  }

  async until(is: (item: T) => boolean): Promise<T> {
    for (;;) {
      const item = await this.next();
      if (is(item)) {
        return item;
      }
    }
  }
}

function device(
  t: TestContext,
  port: number,
  options: Partial<DeviceOptions> = {},
): { device: Device; came: Queue<string> } {
  const came = new Queue<string>();
  const device = new Device({
    url: `mqtt://127.0.0.1:${port}`,
    device: "phone-1",
    token: "sxd1.x",
    firstWaitMaxMs: 50,
    waitMaxMs: 200,
    ...options,
  })
    .onMessage(({ id, notification }) => came.push(`message ${id} ${notification?.title}`))
    .onRecall((id) => came.push(`recall ${id}`))
    .onEvent((event) => came.push(event.type))
    .connect();
  t.after(() => device.stop());
  return { device, came };
}

const message = (id: string): object => ({ id, type: "message", notification: { title: `n${id}` } });
const recall = (id: string): object => ({ id, type: "recall" });

test("a message that comes twice is given once, and one that was recalled not at all", async (t) => {
  const broker = await Broker.start(t);
  const { came } = device(t, broker.port);
  assert.equal(await came.next(), "connected");
  await broker.publish(message("1"), message("1"), message("2"), recall("1"), recall("1"));
  await broker.publish(recall("3"), message("3"), "nothing", { id: "9", type: "song" }, message("4"));
  const expected = ["message 1 n1", "message 2 n2", "recall 1", "recall 3", "ignored", "ignored"];
  for (const one of [...expected, "message 4 n4"]) {
    assert.equal(await came.next(), one);
  }
});

test("a device that is cut off comes back, and says what it could not", async (t) => {
  const first = await Broker.start(t);
  const { device: phone, came } = device(t, first.port);
  assert.equal(await came.next(), "connected");
  await first.publish(message("1"));
  assert.equal(await came.next(), "message 1 n1");
  await first.end();
  assert.equal(await came.next(), "disconnected");
  assert.equal(phone.isConnected, false);
  phone.shown("1");
  phone.clicked("1");
  phone.subscribe("news");
  assert.equal(phone.receiptsWaiting, 2);
  // The new broker is watched before the device finds a way to it.
  const broker = await Broker.start(t);
  const way: Server = createServer((near) => {
    const far = createConnection(broker.port, "127.0.0.1");
    near.pipe(far).pipe(near);
    near.on("error", () => far.destroy());
    far.on("error", () => near.destroy());
  }).listen(first.port, "127.0.0.1");
  t.after(() => way.close());
  await came.until((one) => one === "connected");
  const topics = { subscribe: ["news"], unsubscribe: [] };
  assert.deepEqual(await broker.seen.next(), { topic: "d/phone-1/topics", payload: topics });
  const { payload } = await broker.seen.next();
  const { receipts } = payload as { receipts: { id: string; event: string; at: string }[] };
  assert.deepEqual(receipts.map(({ id, event }) => [id, event]), [["1", "shown"], ["1", "clicked"]]);
  assert.ok(Date.now() - Date.parse(receipts[0]!.at) < 60_000);
  await broker.publish(message("1"), message("2"));
  assert.equal(await came.next(), "message 2 n2", "the first was given before");
  assert.deepEqual(await phone.stop(), [], "all were acknowledged");
});

test("a message is acknowledged when its handler is done, and kept by the broker until then", async (t) => {
  const broker = await Broker.start(t);
  let finish: () => void = () => undefined;
  const gate = new Promise<void>((resolve) => (finish = resolve));
  const begun = new Queue<string>();
  const slow = new Device({
    url: `mqtt://127.0.0.1:${broker.port}`,
    device: "phone-1",
    token: async () => "sxd1.x",
  });
  slow.onMessage(({ id }) => {
    begun.push(id);
    return gate;
  });
  const connected = new Promise<void>((resolve) =>
    slow.onEvent(({ type }) => type === "connected" && resolve()),
  );
  slow.connect();
  await connected;
  await broker.publish(message("1"));
  assert.equal(await begun.next(), "1");
  await slow.stop();
  // Not acknowledged, it comes again to the next connection of the same session.
  const { came } = device(t, broker.port);
  assert.equal(await came.until((one) => one.startsWith("message")), "message 1 n1");
  finish();
});

test("a device that stops says all it has, or gives it back", async (t) => {
  const broker = await Broker.start(t);
  const { device: phone, came } = device(t, broker.port);
  assert.equal(await came.next(), "connected");
  for (let id = 0; id < 250; id++) {
    phone.shown(String(id));
  }
  assert.deepEqual(await phone.stop(), []);
  let count = 0;
  while (count < 250) {
    const { payload } = await broker.seen.next();
    count += (payload as { receipts: object[] }).receipts.length;
  }
  assert.equal(count, 250);
  await broker.end();
  const other = device(t, broker.port);
  assert.equal(await other.came.next(), "disconnected");
  other.device.shown("7");
  assert.deepEqual((await other.device.stop()).map(({ id }) => id), ["7"]);
  assert.throws(() => other.device.connect());
});

test("a handler that throws does not stop what follows", async (t) => {
  const broker = await Broker.start(t);
  const { device: phone, came } = device(t, broker.port);
  phone.onMessage(() => {
    throw new Error("as the test wants");
  });
  assert.equal(await came.next(), "connected");
  await broker.publish(message("1"), message("2"));
  for (const one of ["message 1 n1", "failed", "message 2 n2", "failed"]) {
    assert.equal(await came.next(), one);
  }
});

test("a token that cannot be had is asked for again", async (t) => {
  const broker = await Broker.start(t);
  let asked = 0;
  const token = (): string => {
    asked++;
    if (asked === 1) {
      throw new Error("not now");
    }
    return "sxd1.x";
  };
  const { came } = device(t, broker.port, { token });
  assert.equal(await came.next(), "disconnected");
  assert.equal(await came.next(), "connected");
});

test("an id that no topic can have is refused", () => {
  for (const device of ["", "a+", "#", "a\0"]) {
    assert.throws(() => new Device({ url: "ws://a", device, token: "t" }), RangeError);
  }
});

test("a memory keeps those that came last", () => {
  const seen = new SeenIds(2);
  seen.record("a", "message");
  seen.record("b", "message");
  assert.ok(seen.isSeen("a", "message"));
  seen.record("c", "message");
  assert.ok(!seen.isSeen("b", "message"));
  assert.ok(seen.isSeen("a", "message"));
  assert.ok(!seen.isSeen("a", "recall"));
});

test("what is refused again and again makes room for what follows", () => {
  const outbox = new Outbox(1);
  outbox.push({ id: "1", event: "shown", at: "2026-11-23T10:00:00.000Z" });
  outbox.setTopic("no topic", true);
  for (let attempt = 1; attempt <= 5; attempt++) {
    assert.equal(outbox.next()?.channel, "topics");
    assert.equal(outbox.refused(), attempt === 5);
    outbox.lost();
  }
  assert.equal(outbox.next()?.channel, "receipts");
});

test("receipts and topics wait up to a limit, and the last word on a topic counts", () => {
  const outbox = new Outbox(1);
  const receipt = { id: "1", event: "shown", at: "2026-11-23T10:00:00.000Z" } as const;
  outbox.push(receipt);
  assert.throws(() => outbox.push(receipt), RangeError);
  outbox.setTopic("news", true);
  outbox.setTopic("sport", true);
  outbox.setTopic("sport", false);
  const first = { channel: "topics", payload: '{"subscribe":["news"],"unsubscribe":["sport"]}' };
  assert.deepEqual(outbox.next(), first);
  assert.equal(outbox.next(), null, "one is under way");
  outbox.lost();
  assert.deepEqual(outbox.next(), first);
  outbox.setTopic("news", false);
  outbox.done();
  assert.equal(outbox.next()?.payload, '{"subscribe":[],"unsubscribe":["news"]}');
  outbox.done();
  assert.equal(outbox.next()?.payload, JSON.stringify({ receipts: [receipt] }));
  outbox.done();
  assert.equal(outbox.next(), null);
});
