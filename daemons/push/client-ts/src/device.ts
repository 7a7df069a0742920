/**
 * The device: it gets messages, shows each once, and says what became of them.
 *
 * ```text
 *   caller ──► shown, clicked, subscribe ──┐ bounded, kept until acknowledged
 *                                          ▼
 *      connect ─► subscribe ─► live ──► handlers ─► acknowledged when they are done
 *         ▲                      │ cut off
 *         └── back-off, jitter ◄─┘
 * ```
 *
 * Connections are MQTT 5 with a session that the broker keeps, over WebSocket in browsers, made by
 * the package `mqtt`. A message may come twice, by the broker's promise of at least once; `Seen`
 * tells.
 */
import mqtt, { type IPublishPacket, type MqttClient } from "mqtt";

import { Backoff, sleep } from "./backoff.js";
import { Outbox, type Receipt } from "./outbox.js";
import { SeenIds, type Kind, type Seen } from "./seen.js";
import type { JsonObject, Notification } from "./types.js";

export type { Receipt } from "./outbox.js";
export { SeenIds } from "./seen.js";
export type { Kind, Seen } from "./seen.js";

/** A message that came. */
export interface DeviceMessage {
  /** What it is called in receipts. */
  id: string;
  sent_at: string | null;
  /** What to show. */
  notification: Notification | null;
  /** What the app is given. */
  data: JsonObject | null;
}

/** What else a device may want to know. */
export type DeviceEvent =
  /** It gets messages from now on. */
  | { type: "connected" }
  /** It is not, or could not be, connected, and tries again after a wait. */
  | { type: "disconnected"; why: string; waitMs: number }
  /** Something came that is no message of the platform. */
  | { type: "ignored"; why: string }
  /** The broker refused receipts or topics for good; they are gone. */
  | { type: "refused"; why: string }
  /** A handler threw. What it was given counts as given. */
  | { type: "failed"; error: unknown };

/** How a device connects. */
export interface DeviceOptions {
  /** Where the broker listens: `ws://host:port/mqtt`, `wss://…`, and in Node also `mqtt://…`. */
  url: string;
  /** The device's id. */
  device: string;
  /** Its token, or what gets one, before each attempt to connect. */
  token: string | (() => string | Promise<string>);
  /** How often it says that it is there, seconds; 60. */
  keepAliveSeconds?: number;
  /** The longest wait before the first attempt to connect again, which doubles, ms; 1,000. */
  firstWaitMaxMs?: number;
  /** The longest wait before any attempt, ms; 120,000. */
  waitMaxMs?: number;
  /** How long the broker is asked to keep the session, seconds; a week. */
  sessionExpirySeconds?: number;
  /** How many receipts wait for the broker at most; 10,000. */
  receiptsMax?: number;
  /** How a message is known that came before; 10,000 ids, until the page is left. */
  seen?: Seen;
}

/** How long it may take until a device is connected and subscribed, milliseconds. */
const CONNECT_TIME_MAX_MS = 15_000;
/** How long a connection must have lasted for the next wait to be a short one again, ms. */
const STABLE_AFTER_MS = 10_000;
/** How long receipts may still be acknowledged when the device stops, milliseconds. */
const STOP_TIME_MAX_MS = 2_000;
/** The largest packet that is taken, bytes. */
const PACKET_BYTES_MAX = 1 << 20;
/** How many messages the broker sends before the first is acknowledged. */
const RECEIVE_MAX = 32;
/** Reasons of a PUBACK: the broker has too much to do, or does not tell whether it is for good. */
const UNSPECIFIED = 0x80;
const IMPLEMENTATION_SPECIFIC = 0x83;
const QUOTA_EXCEEDED = 0x97;

/** A device that is connected, or tries to be, from `connect` until `stop`. */
export class Device {
  readonly #options: Required<DeviceOptions>;
  readonly #outbox: Outbox;
  readonly #onMessage: ((message: DeviceMessage) => void | Promise<void>)[] = [];
  readonly #onRecall: ((id: string) => void | Promise<void>)[] = [];
  readonly #onEvent: ((event: DeviceEvent) => void)[] = [];
  readonly #stop = new AbortController();
  #running: Promise<void> | null = null;
  /** The connection that is subscribed. */
  #live: { client: MqttClient; end: (why: string) => void } | null = null;
  /** What came last, until its handlers are done. */
  #turn: Promise<void> = Promise.resolve();
  /** Told when the outbox is empty. */
  #drained: (() => void) | null = null;

  constructor(options: DeviceOptions) {
    if (!/^[^+#\0]{1,65000}$/.test(options.device)) {
      throw new RangeError("the id of a device is empty, too long, or holds one of + # NUL");
    }
    this.#options = {
      keepAliveSeconds: 60,
      firstWaitMaxMs: 1_000,
      waitMaxMs: 120_000,
      sessionExpirySeconds: 7 * 86_400,
      receiptsMax: 10_000,
      seen: new SeenIds(10_000),
      ...options,
    };
    this.#outbox = new Outbox(this.#options.receiptsMax);
  }

  /**
   * A message came, for the first time. It is acknowledged when all handlers are done, and until
   * then nothing else of the broker is looked at: what takes long is not to be waited for.
   */
  onMessage(handler: (message: DeviceMessage) => void | Promise<void>): this {
    this.#onMessage.push(handler);
    return this;
  }

  /** A message was taken back: it is shown no longer. It may be one that never came. */
  onRecall(handler: (id: string) => void | Promise<void>): this {
    this.#onRecall.push(handler);
    return this;
  }

  /** Something else happened. */
  onEvent(handler: (event: DeviceEvent) => void): this {
    this.#onEvent.push(handler);
    return this;
  }

  /** Connects in the background, again and again. Handlers are to be there before. */
  connect(): this {
    if (this.#stop.signal.aborted) {
      throw new Error("the device was stopped");
    }
    this.#running ??= this.#run();
    return this;
  }

  /** A message was shown. The receipt is kept until the broker has it. */
  shown(id: string): void {
    this.receipt({ id, event: "shown", at: new Date().toISOString() });
  }

  /** A message was clicked. */
  clicked(id: string): void {
    this.receipt({ id, event: "clicked", at: new Date().toISOString() });
  }

  /** A receipt with a time of its own, such as one that `stop` gave back. */
  receipt(receipt: Receipt): void {
    this.#outbox.push(receipt);
    this.#flush();
  }

  /** Subscribes to a topic of the app. The last word on a topic counts. */
  subscribe(topic: string): void {
    this.#outbox.setTopic(topic, true);
    this.#flush();
  }

  /** Unsubscribes from a topic of the app. */
  unsubscribe(topic: string): void {
    this.#outbox.setTopic(topic, false);
    this.#flush();
  }

  /** How many receipts the broker does not have yet. */
  get receiptsWaiting(): number {
    return this.#outbox.receiptsLength;
  }

  /** Whether the device is connected and subscribed. */
  get isConnected(): boolean {
    return this.#live !== null;
  }

  /**
   * Stops: receipts that wait are acknowledged within two seconds, or given back for another time.
   * The broker keeps the session, and what comes meanwhile.
   */
  async stop(): Promise<Receipt[]> {
    if (this.#live !== null && !this.#outbox.isEmpty) {
      const drained = new Promise<void>((resolve) => {
        this.#drained = resolve;
      });
      await within(STOP_TIME_MAX_MS, drained);
    }
    this.#stop.abort(new Error("the device stops"));
    await this.#running;
    return this.#outbox.takeReceipts();
  }

  async #run(): Promise<void> {
    const backoff = new Backoff(this.#options.firstWaitMaxMs, this.#options.waitMaxMs);
    const { signal } = this.#stop;
    while (!signal.aborted) {
      const { why, lastedMs } = await this.#serve();
      if (signal.aborted) {
        return;
      }
      if (lastedMs >= STABLE_AFTER_MS) {
        backoff.reset();
      }
      const waitMs = backoff.wait();
      this.#tell({ type: "disconnected", why, waitMs });
      await sleep(waitMs, signal).catch(() => undefined);
    }
  }

  /** Makes one connection, and serves it until its end. */
  async #serve(): Promise<{ why: string; lastedMs: number }> {
    const { signal } = this.#stop;
    const { promise: ended, resolve: end } = withResolvers<string>();
    const stopped = (): void => end("the device stops");
    signal.addEventListener("abort", stopped);
    const timer = setTimeout(() => end("the broker did not answer in time"), CONNECT_TIME_MAX_MS);
    let client: MqttClient | undefined;
    let subscribedAt: number | undefined;
    try {
      const token = await Promise.race([this.#token(), ended.then((why) => ({ why }))]);
      if (typeof token !== "string") {
        return { why: token.why, lastedMs: 0 };
      }
      client = this.#open(token);
      client.on("error", (error) => end(error.message));
      client.on("close", () => end("the connection was closed"));
      client.on("disconnect", (packet) => end(`the broker closed: ${packet.reasonCode}`));
      const { handleMessage } = client;
      const current = client;
      client.handleMessage = (packet, done) => {
        // One after the other, also when the connection before left one to be done.
        const turn = this.#turn.then(() => this.#arrived(packet));
        this.#turn = turn.catch(() => undefined);
        turn.then(
          () => handleMessage.call(current, packet, done),
          (error: unknown) => end(String(error)),
        );
      };
      client.once("connect", () => {
        current.subscribe(this.#topic("push"), { qos: 1 }, (error, granted) => {
          const code = granted?.[0]?.qos ?? 0x80;
          if (error || code >= 0x80) {
            end(`the broker refuses the subscription: ${error?.message ?? code}`);
            return;
          }
          clearTimeout(timer);
          subscribedAt = Date.now();
          this.#live = { client: current, end };
          this.#tell({ type: "connected" });
          this.#flush();
        });
      });
      const why = await ended;
      return { why, lastedMs: subscribedAt === undefined ? 0 : Date.now() - subscribedAt };
    } catch (error) {
      return { why: String(error), lastedMs: 0 };
    } finally {
      clearTimeout(timer);
      signal.removeEventListener("abort", stopped);
      this.#live = null;
      this.#outbox.lost();
      await close(client, signal.aborted);
    }
  }

  #open(password: string): MqttClient {
    const { url, device, keepAliveSeconds, sessionExpirySeconds } = this.#options;
    return mqtt.connect(url, {
      protocolVersion: 5,
      clientId: device,
      username: device,
      password,
      clean: false,
      keepalive: keepAliveSeconds,
      connectTimeout: CONNECT_TIME_MAX_MS,
      // Connecting again is done here.
      reconnectPeriod: 0,
      resubscribe: false,
      properties: {
        sessionExpiryInterval: sessionExpirySeconds,
        receiveMaximum: RECEIVE_MAX,
        maximumPacketSize: PACKET_BYTES_MAX,
      },
    });
  }

  async #token(): Promise<string> {
    const { token } = this.#options;
    return typeof token === "string" ? token : token();
  }

  #topic(name: string): string {
    return `d/${this.#options.device}/${name}`;
  }

  /** Gives what came to the handlers. */
  async #arrived(packet: IPublishPacket): Promise<void> {
    if (packet.topic !== this.#topic("push")) {
      return;
    }
    const payload = parsePayload(packet.payload);
    if (typeof payload === "string") {
      this.#tell({ type: "ignored", why: payload });
      return;
    }
    const { id, kind, message } = payload;
    const { seen } = this.#options;
    if (await seen.isSeen(id, kind)) {
      return;
    }
    if (kind === "message") {
      await this.#call(this.#onMessage, message);
    } else {
      await this.#call(this.#onRecall, id);
      // Should the message come after all, it is not to be shown.
      await seen.record(id, "message");
    }
    await seen.record(id, kind);
  }

  async #call<T>(handlers: ((value: T) => void | Promise<void>)[], value: T): Promise<void> {
    for (const handler of handlers) {
      try {
        await handler(value);
      } catch (error) {
        this.#tell({ type: "failed", error });
      }
    }
  }

  #tell(event: DeviceEvent): void {
    for (const handler of this.#onEvent) {
      try {
        handler(event);
      } catch (error) {
        // The platform tells of it, as of any handler that throws; the connection goes on.
        queueMicrotask(() => {
          throw error;
        });
      }
    }
  }

  /** Publishes what waits, if nothing is under way. */
  #flush(): void {
    const live = this.#live;
    if (live === null) {
      return;
    }
    const next = this.#outbox.next();
    if (next === null) {
      if (this.#outbox.isEmpty) {
        this.#drained?.();
      }
      return;
    }
    live.client.publish(this.#topic(next.channel), next.payload, { qos: 1 }, (error) => {
      if (this.#live !== live) {
        return;
      }
      if (error && !this.#isGivenUp(error)) {
        live.end(error.message);
        return;
      }
      if (error) {
        this.#tell({ type: "refused", why: error.message });
      } else {
        this.#outbox.done();
      }
      this.#flush();
    });
  }

  /** Whether what was under way is not said again. */
  #isGivenUp(error: Error): boolean {
    const code = "code" in error ? Number(error.code) : 0;
    if (code === IMPLEMENTATION_SPECIFIC) {
      return this.#outbox.refused();
    }
    // Below are no refusals, but what a connection fails with.
    const isForGood = code > UNSPECIFIED && code !== QUOTA_EXCEEDED;
    if (isForGood) {
      this.#outbox.done();
    }
    return isForGood;
  }
}

interface Payload {
  id: string;
  kind: Kind;
  message: DeviceMessage;
}

/** What the daemon publishes; or why it is no message of it. */
function parsePayload(bytes: IPublishPacket["payload"]): Payload | string {
  let value: unknown;
  try {
    value = JSON.parse(typeof bytes === "string" ? bytes : new TextDecoder().decode(bytes));
  } catch (error) {
    return String(error);
  }
  if (typeof value !== "object" || value === null) {
    return "it is no object";
  }
  const { id, type, sent_at, notification, data } = value as Record<string, unknown>;
  if (typeof id !== "string") {
    return "it has no id";
  }
  if (type !== "message" && type !== "recall") {
    return `it is of the type ${String(type)}, which this version does not know`;
  }
  const message: DeviceMessage = {
    id,
    sent_at: typeof sent_at === "string" ? sent_at : null,
    notification: isObject(notification) ? (notification as Notification) : null,
    data: isObject(data) ? (data as JsonObject) : null,
  };
  return { id, kind: type, message };
}

function isObject(value: unknown): value is object {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Closes a connection: with a goodbye if the device stops, and at once if it is lost anyway. */
async function close(client: MqttClient | undefined, withGoodbye: boolean): Promise<void> {
  if (client === undefined) {
    return;
  }
  const isOpen = withGoodbye && client.connected;
  // Errors of a connection that is given up are nobody's.
  client.removeAllListeners("error").on("error", () => undefined);
  await within(STOP_TIME_MAX_MS, client.endAsync(!isOpen));
  if (isOpen) {
    client.end(true);
  }
}

/** Waits for something, and no longer than this. */
async function within(ms: number, something: Promise<unknown>): Promise<void> {
  const late = new AbortController();
  const done = something.catch(() => undefined);
  await Promise.race([done, sleep(ms, late.signal).catch(() => undefined)]);
  late.abort();
}

/** `Promise.withResolvers`, which Node 20 does not have. */
function withResolvers<T>(): { promise: Promise<T>; resolve: (value: T) => void } {
  let resolve: (value: T) => void = () => undefined;
  const promise = new Promise<T>((given) => {
    resolve = given;
  });
  return { promise, resolve };
}
