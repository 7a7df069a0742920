/**
 * The sender: requests to the daemon's API, in Node and in browsers, with `fetch`.
 *
 * ```text
 *   call ─► HTTP ─► 2xx ───────────────────────────────► answer
 *    ▲               ├─ 429, 503, no answer, and the
 *    │               │  request may be said twice ──► wait ─┐
 *    │               └─ anything else ─────────────────────┼─► error
 *    └──────────────────── at most `attemptsMax` ───────────┘
 * ```
 *
 * A request may be said twice where twice does the same as once: reading, putting, changing, and
 * sending a message, since every message has an idempotency key. Removing, recalling, tokens and
 * uploads are said once; whoever repeats them knows what a second time means.
 */
import { Backoff, sleep } from "./backoff.js";
import {
  AnswerError,
  ProblemError,
  RequestError,
  TransportError,
  parseProblem,
  worthRepeatingAfter,
  type Problem,
} from "./errors.js";
import { Gatherer } from "./gather.js";
import { lines } from "./lines.js";
import type {
  AuditQuery,
  By,
  DeviceEntry,
  DeviceRecord,
  DeviceUpdate,
  DryRun,
  Entry,
  Funnel,
  Import,
  KeyedRequest,
  ListUpload,
  Live,
  Message,
  MessageRequest,
  Outcome,
  Page,
  Recalled,
  Sent,
  State,
  Token,
} from "./types.js";
import { uuidV7 } from "./uuid.js";

/** How patient a sender is. */
export interface Patience {
  /** How often a request is said that may be said twice; 5. */
  attemptsMax: number;
  /** The longest wait after the first attempt, which doubles with each, milliseconds; 200. */
  firstWaitMaxMs: number;
  /** The longest wait after any attempt, milliseconds; 10,000. */
  waitMaxMs: number;
  /**
   * How long one attempt may take, save uploads, milliseconds; 30,000. A stream of messages gives
   * up on an answer that brings nothing for so long.
   */
  attemptTimeMaxMs: number;
}

/** What a sender may be given beside what it needs. */
export interface SenderOptions {
  patience?: Partial<Patience>;
  /** Ends all that the sender does, and the waits between. */
  signal?: AbortSignal;
  /** Another `fetch` than the platform's. */
  fetch?: typeof fetch;
}

/** What can be uploaded. */
export type Upload =
  | string
  | Uint8Array
  | Blob
  | ReadableStream<Uint8Array>
  | AsyncIterable<string | Uint8Array>;

interface Call {
  method: string;
  path: string;
  /** A value to be said as JSON, or lines that are it already. */
  body?: unknown;
  lines?: string;
  key?: string;
  mayRepeat: boolean;
}

/** How many messages a batch has at most. */
const BATCH_LENGTH_MAX = 1000;
/** The longest message, as JSON, bytes: the daemon takes no longer line. */
const LINE_BYTES_MAX = 64 << 10;
/** How long nothing may change before a live message's connection is made again, milliseconds. */
const SILENCE_MAX_MS = 60_000;
const FINAL: readonly State[] = ["finished", "recalled", "rejected", "withdrawn"];

const KEY = /^[\x21-\x7e]{1,128}$/;

/** What a batch or a stream says of one message. */
interface Told {
  status: number;
  message?: Message;
  problem?: Problem;
}

/** Speaks to the daemon for one app. */
export class Sender {
  readonly #base: string;
  readonly #app: string;
  readonly #key: string;
  readonly #patience: Patience;
  readonly #signal: AbortSignal | undefined;
  readonly #fetch: typeof fetch;

  /**
   * @param base where the daemon's API is, without the version: `http://127.0.0.1:7701`
   * @param app the app
   * @param key one of its keys, `spk_…`, or the admin token
   */
  constructor(base: string, app: string, key: string, options: SenderOptions = {}) {
    const url = parseUrl(base);
    if (url === null || !/^https?:$/.test(url.protocol) || url.search !== "") {
      throw new RequestError(`${base} is no address of HTTP`);
    }
    if (!/^[\x21-\x7e]+$/.test(key)) {
      throw new RequestError("the key is empty or has characters no key has");
    }
    this.#base = base.replace(/\/+$/, "");
    this.#app = app;
    this.#key = key;
    this.#patience = {
      attemptsMax: 5,
      firstWaitMaxMs: 200,
      waitMaxMs: 10_000,
      attemptTimeMaxMs: 30_000,
      ...options.patience,
    };
    this.#signal = options.signal;
    const given = options.fetch ?? fetch;
    this.#fetch = (input, init) => given(input, init);
  }

  /**
   * Sends a message. When this returns, the daemon has it for good, once, however many attempts it
   * took.
   */
  async send(request: MessageRequest, idempotencyKey: string = uuidV7()): Promise<Sent> {
    checkKey(idempotencyKey);
    const path = this.#path("messages");
    const call = { method: "POST", path, body: request, key: idempotencyKey, mayRepeat: true };
    const answer = await this.#exchange(call);
    const replayed = answer.response.headers.has("idempotency-replayed");
    return { message: parse<Message>(answer.text), idempotencyKey, replayed };
  }

  /** What `send` would do now. */
  dryRun(request: MessageRequest): Promise<DryRun> {
    return this.#say("POST", this.#path("messages"), { ...request, dry_run: true });
  }

  /** Sends up to 1,000 messages at once. What became of each is told in their order. */
  async sendBatch(requests: readonly KeyedRequest[]): Promise<Outcome[]> {
    if (requests.length === 0) {
      return [];
    }
    if (requests.length > BATCH_LENGTH_MAX) {
      throw new RequestError(`a batch has at most ${BATCH_LENGTH_MAX} messages`);
    }
    const messages = requests.map(keyed);
    const path = this.#path("messages", "batch");
    const { results } = await this.#say<{ results: Told[] }>("POST", path, { messages });
    if (results.length !== messages.length) {
      throw new AnswerError(`${results.length} results for ${messages.length} messages`);
    }
    return results.map((told, i) => outcome(told, messages[i]!.idempotency_key));
  }

  /**
   * Sends messages as they come, some hundred with one request. What became of each comes out, in
   * their order, when it is durable. When the connection breaks, those without an outcome are said
   * again, with their keys. After an error nothing follows.
   */
  async *stream(
    requests: Iterable<KeyedRequest> | AsyncIterable<KeyedRequest>,
  ): AsyncGenerator<Outcome, void, undefined> {
    const gatherer = new Gatherer(requests);
    try {
      for (;;) {
        const some = await gatherer.next();
        if (some.length === 0) {
          return;
        }
        yield* this.#streamSome(some);
      }
    } finally {
      await gatherer.return();
    }
  }

  async *#streamSome(requests: KeyedRequest[]): AsyncGenerator<Outcome, void, undefined> {
    const { unanswered, failure } = encoded(requests);
    const backoff = this.#backoff();
    for (let attempt = 1; unanswered.length > 0; attempt++) {
      try {
        const body = unanswered.map(({ line }) => line).join("");
        const path = this.#path("messages", "stream");
        const call = { method: "POST", path, lines: body, mayRepeat: true };
        const response = await this.#within((signal) => this.#attempt(call, signal));
        for await (const line of lines(bodyOf(response), this.#patience.attemptTimeMaxMs)) {
          if (line.trim() === "") {
            continue;
          }
          const request = unanswered[0];
          if (request === undefined) {
            throw new AnswerError("more results than messages");
          }
          const told = parse<Told>(line);
          if (told.status === 503 && told.problem !== undefined) {
            // It is about this message, and about all behind it.
            throw new ProblemError({ ...told.problem, status: told.status });
          }
          const result = outcome(told, request.key);
          unanswered.shift();
          attempt = 1;
          backoff.reset();
          yield result;
        }
        if (unanswered.length > 0) {
          throw new TransportError("the answer ended before the last result");
        }
      } catch (error) {
        await this.#beforeNext(error, attempt, backoff);
      }
    }
    if (failure !== null) {
      throw failure;
    }
  }

  /** A message. */
  message(id: string): Promise<Message> {
    return this.#get(this.#path("messages", id));
  }

  /** A page of the messages, newest first. */
  async messagesPage(
    query: { state?: State; limit?: number } = {},
    after?: string | null,
  ): Promise<Page<Message>> {
    const path = this.#path("messages") + search({ ...query, after });
    const { messages, next } = await this.#get<{ messages: Message[]; next?: string }>(path);
    return { items: messages, next: next ?? null, incomplete: false };
  }

  /** The messages, newest first, page after page. */
  messages(query: { state?: State; limit?: number } = {}): AsyncGenerator<Message, void, undefined> {
    return pages((after) => this.messagesPage(query, after));
  }

  /**
   * Takes a message back: who has not got it does not get it, who has is told so. It is not said
   * twice: after a `TransportError` it may be done.
   */
  recall(id: string): Promise<Recalled> {
    return this.#once("POST", this.#path("messages", id, "recall"));
  }

  /** What became of a message, with the parts that `by` asks for. */
  funnel(id: string, by?: By): Promise<Funnel> {
    return this.#get(this.#path("messages", id, "funnel") + search({ by }));
  }

  /** A message's state and numbers as they change, until it has finished. */
  async *live(id: string): AsyncGenerator<Live, void, undefined> {
    const backoff = this.#backoff();
    const path = this.#path("messages", id, "live");
    let last = "";
    for (let attempt = 1; ; attempt++) {
      let isOpen = false;
      try {
        const call = { method: "GET", path, mayRepeat: true };
        const response = await this.#within((signal) =>
          this.#attempt(call, signal, "text/event-stream"),
        );
        isOpen = true;
        for await (const data of funnelEvents(bodyOf(response))) {
          const live = parse<Live>(data);
          attempt = 1;
          backoff.reset();
          if (data !== last) {
            last = data;
            yield live;
          }
          if (FINAL.includes(live.state)) {
            return;
          }
        }
        throw new TransportError("the events ended before the message had finished");
      } catch (error) {
        const isSilence = error instanceof TransportError && /nothing came/.test(error.message);
        if (!(isOpen && isSilence)) {
          await this.#beforeNext(error, attempt, backoff);
        }
      }
    }
  }

  /** A page of what was written down. */
  async auditPage(query: AuditQuery = {}, after?: string | null): Promise<Page<Entry>> {
    const stages = query.stages?.length ? query.stages.join(",") : undefined;
    const path = this.#path("audit") + search({ ...query, stages, after });
    type Entries = { entries: Entry[]; next?: string; incomplete?: boolean };
    const { entries, next, incomplete } = await this.#get<Entries>(path);
    return { items: entries, next: next ?? null, incomplete: incomplete ?? false };
  }

  /** All that was written down, page after page. */
  audit(query: AuditQuery = {}): AsyncGenerator<Entry, void, undefined> {
    return pages((after) => this.auditPage(query, after));
  }

  /** Says what a device is, whether it is known or not. */
  putDevice(device: string, entry: DeviceEntry): Promise<DeviceRecord> {
    return this.#say("PUT", this.#path("devices", device), entry);
  }

  /** Changes what a device is. */
  updateDevice(device: string, update: DeviceUpdate): Promise<DeviceRecord> {
    return this.#say("PATCH", this.#path("devices", device), update);
  }

  /** What a device is. */
  device(device: string): Promise<DeviceRecord> {
    return this.#get(this.#path("devices", device));
  }

  /** Removes a device. It is not said twice. */
  async removeDevice(device: string): Promise<void> {
    await this.#once("DELETE", this.#path("devices", device));
  }

  /** A page of the devices that an expression is true of, or of all. */
  async devicesPage(
    query: { expression?: string; limit?: number } = {},
    after?: string | null,
  ): Promise<Page<DeviceRecord>> {
    const path = this.#path("devices") + search({ ...query, after });
    const { devices, next } = await this.#get<{ devices: DeviceRecord[]; next?: string }>(path);
    return { items: devices, next: next ?? null, incomplete: false };
  }

  /** The devices that an expression is true of, or all, page after page. */
  devices(expression?: string): AsyncGenerator<DeviceRecord, void, undefined> {
    const query = expression === undefined ? {} : { expression };
    return pages((after) => this.devicesPage(query, after));
  }

  /**
   * Says what many devices are: JSON, one a line, each with its id as `device`. It is not said
   * twice; to import the same again does no harm.
   */
  importDevices(body: Upload): Promise<Import> {
    return this.#upload(this.#path("devices", "import"), "application/x-ndjson", body);
  }

  /** A token for a device, the password of its connection. It is not said twice. */
  token(device: string, ttl: string): Promise<Token> {
    return this.#once("POST", this.#path("devices", device, "tokens"), { ttl });
  }

  /** Makes all tokens of a device invalid, and closes its connection. It is not said twice. */
  async revokeTokens(device: string): Promise<void> {
    await this.#once("DELETE", this.#path("devices", device, "tokens"));
  }

  /** Uploads a list of devices, of any length. It is not said twice. */
  uploadList(format: "ndjson" | "csv", body: Upload): Promise<ListUpload> {
    const contentType = format === "csv" ? "text/csv" : "application/x-ndjson";
    return this.#upload(this.#path("lists"), contentType, body);
  }

  /** `/apps/{app}` and what follows, each segment encoded. */
  #path(...segments: string[]): string {
    return ["/apps", ...[this.#app, ...segments].map(encodeURIComponent)].join("/");
  }

  #backoff(): Backoff {
    return new Backoff(this.#patience.firstWaitMaxMs, this.#patience.waitMaxMs);
  }

  async #get<T>(path: string): Promise<T> {
    return parse((await this.#exchange({ method: "GET", path, mayRepeat: true })).text);
  }

  /** Says something that may be said twice. */
  async #say<T>(method: string, path: string, body: unknown): Promise<T> {
    return parse((await this.#exchange({ method, path, body, mayRepeat: true })).text);
  }

  /** Says something that may not. */
  async #once<T>(method: string, path: string, body?: unknown): Promise<T> {
    const { response, text } = await this.#exchange({ method, path, body, mayRepeat: false });
    return response.status === 204 ? (undefined as T) : parse(text);
  }

  /** Makes a call, again and again where that is safe and may help. */
  async #exchange(call: Call): Promise<{ response: Response; text: string }> {
    const backoff = this.#backoff();
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.#within(async (signal) => {
          const response = await this.#attempt(call, signal);
          return { response, text: await textOf(response) };
        });
      } catch (error) {
        if (!call.mayRepeat) {
          throw error;
        }
        await this.#beforeNext(error, attempt, backoff);
      }
    }
  }

  /** Runs something with a signal that ends it after the time of an attempt. */
  async #within<T>(run: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const abort = new AbortController();
    const ms = this.#patience.attemptTimeMaxMs;
    const timer = setTimeout(() => abort.abort(new Error(`no answer within ${ms} ms`)), ms);
    try {
      return await run(abort.signal);
    } finally {
      clearTimeout(timer);
    }
  }

  /** Waits before the next attempt, if there is to be one; else the error is the caller's. */
  async #beforeNext(error: unknown, attempt: number, backoff: Backoff): Promise<void> {
    const atLeast = worthRepeatingAfter(error);
    if (atLeast === null || attempt >= this.#patience.attemptsMax || this.#signal?.aborted) {
      throw error;
    }
    await sleep(atLeast + backoff.wait(), this.#signal);
  }

  /** Makes a call once. What comes back has a status of success. */
  async #attempt(call: Call, signal: AbortSignal, accept?: string): Promise<Response> {
    const headers: Record<string, string> = {};
    if (call.key !== undefined) {
      headers["idempotency-key"] = call.key;
    }
    if (accept !== undefined) {
      headers["accept"] = accept;
    }
    let body: string | undefined;
    if (call.lines !== undefined) {
      headers["content-type"] = "application/x-ndjson";
      body = call.lines;
    } else if (call.body !== undefined) {
      headers["content-type"] = "application/json";
      body = JSON.stringify(call.body);
    }
    return this.#fetched(call.path, { method: call.method, headers, body: body ?? null }, signal);
  }

  async #upload<T>(path: string, contentType: string, body: Upload): Promise<T> {
    const isIterable = typeof body === "object" && Symbol.asyncIterator in body;
    const isStream = body instanceof ReadableStream;
    const init = {
      method: "POST",
      headers: { "content-type": contentType },
      body: (isIterable && !isStream ? streamOf(body) : body) as BodyInit,
      // What is streamed needs it, and the rest does not mind.
      duplex: "half",
    };
    return parse(await textOf(await this.#fetched(path, init)));
  }

  async #fetched(path: string, init: RequestInit, signal?: AbortSignal): Promise<Response> {
    const signals = [signal, this.#signal].filter((signal) => signal !== undefined);
    let response: Response;
    try {
      response = await this.#fetch(`${this.#base}/v1${path}`, {
        ...init,
        headers: { ...init.headers, authorization: `Bearer ${this.#key}` },
        redirect: "manual",
        signal: AbortSignal.any(signals),
      });
    } catch (error) {
      throw new TransportError(error instanceof Error && error.cause ? error.cause : error);
    }
    if (response.ok) {
      return response;
    }
    const retryAfter = Number(response.headers.get("retry-after") ?? Number.NaN);
    const retryAfterMs = Number.isFinite(retryAfter) ? retryAfter * 1000 : null;
    const text = await textOf(response).catch(() => "");
    throw new ProblemError(parseProblem(response.status, response.statusText, text), retryAfterMs);
  }
}

/** `URL.parse`, which not every platform has yet. */
function parseUrl(text: string): URL | null {
  try {
    return new URL(text);
  } catch {
    return null;
  }
}

function checkKey(key: string): void {
  if (!KEY.test(key)) {
    throw new RequestError("an idempotency key has 1 to 128 visible characters of ASCII");
  }
}

/** A request with its key, or one of our own. */
function keyed(request: KeyedRequest): KeyedRequest & { idempotency_key: string } {
  const idempotency_key = request.idempotency_key ?? uuidV7();
  checkKey(idempotency_key);
  return { ...request, idempotency_key };
}

/**
 * Requests as lines with their keys, up to the first that cannot be said.
 */
function encoded(requests: KeyedRequest[]): {
  unanswered: { key: string; line: string }[];
  failure: unknown;
} {
  const unanswered: { key: string; line: string }[] = [];
  try {
    for (const given of requests) {
      const request = keyed(given);
      const line = `${JSON.stringify(request)}\n`;
      if (new TextEncoder().encode(line).length > LINE_BYTES_MAX) {
        throw new RequestError(`a message has at most ${LINE_BYTES_MAX} bytes of JSON`);
      }
      unanswered.push({ key: request.idempotency_key, line });
    }
  } catch (failure) {
    return { unanswered, failure };
  }
  return { unanswered, failure: null };
}

function outcome(told: Told, idempotencyKey: string): Outcome {
  if (told.message !== undefined) {
    return { idempotencyKey, message: told.message };
  }
  if (told.problem !== undefined) {
    return { idempotencyKey, problem: { ...told.problem, status: told.status } };
  }
  throw new AnswerError("neither a message nor a problem");
}

function parse<T>(text: string): T {
  try {
    return JSON.parse(text) as T;
  } catch (error) {
    throw new AnswerError(String(error));
  }
}

async function textOf(response: Response): Promise<string> {
  try {
    return await response.text();
  } catch (error) {
    throw new TransportError(error);
  }
}

function bodyOf(response: Response): ReadableStream<Uint8Array> {
  if (response.body === null) {
    throw new AnswerError("it has no body");
  }
  return response.body;
}

function streamOf(chunks: AsyncIterable<string | Uint8Array>): ReadableStream<Uint8Array> {
  const encoder = new TextEncoder();
  const iterator = chunks[Symbol.asyncIterator]();
  return new ReadableStream({
    async pull(controller) {
      const { done, value } = await iterator.next();
      if (done) {
        controller.close();
      } else {
        controller.enqueue(typeof value === "string" ? encoder.encode(value) : value);
      }
    },
    async cancel() {
      await iterator.return?.();
    },
  });
}

/** The data of the events of the kind `funnel`. */
async function* funnelEvents(
  body: ReadableStream<Uint8Array>,
): AsyncGenerator<string, void, undefined> {
  let kind = "";
  let data = "";
  for await (const line of lines(body, SILENCE_MAX_MS)) {
    if (line === "") {
      if (kind === "funnel") {
        yield data;
      }
      kind = "";
      data = "";
      continue;
    }
    const [, field, value] = /^([^:]*):? ?(.*)$/s.exec(line) ?? [];
    if (field === "event") {
      kind = value ?? "";
    } else if (field === "data") {
      data += value ?? "";
      if (data.length > 1 << 20) {
        throw new AnswerError("an event is too long");
      }
    }
  }
}

/** The items of all pages. */
async function* pages<T>(
  fetchPage: (after: string | null) => Promise<Page<T>>,
): AsyncGenerator<T, void, undefined> {
  let after: string | null = null;
  do {
    const page: Page<T> = await fetchPage(after);
    yield* page.items;
    after = page.next;
  } while (after !== null);
}

/** A query of those values that are there. */
function search(values: Record<string, string | number | boolean | null | undefined>): string {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) {
    if (value !== null && value !== undefined) {
      query.set(name, String(value));
    }
  }
  const text = query.toString();
  return text && `?${text}`;
}
