/** The sender against a server that answers as it is told. */
import assert from "node:assert/strict";
import { test } from "node:test";

import {
  AnswerError,
  Backoff,
  ProblemError,
  RequestError,
  Sender,
  TransportError,
  type KeyedRequest,
  type MessageRequest,
} from "../src/index.js";
import { uuidV7 } from "../src/uuid.js";
import { Server, answer, hangUp, type Reply } from "./server.js";

const request: MessageRequest = { target: { everyone: true }, notification: { title: "Hi" } };

function message(id: number): { id: string; state: string } {
  return { id: String(id), state: "running" };
}

async function withServer(
  replies: Reply[],
  run: (server: Server) => Promise<void>,
): Promise<void> {
  const server = await Server.start(...replies);
  try {
    await run(server);
  } finally {
    await server.close();
  }
}

test("a message is sent again with the same key until it has an answer", () =>
  withServer(
    [
      hangUp,
      answer(503, ""),
      answer(429, "", { "retry-after": "0" }),
      answer(200, message(7), { "idempotency-replayed": "true" }),
    ],
    async (server) => {
      const sent = await server.sender().send(request);
      assert.equal(sent.message.id, "7");
      assert.equal(sent.replayed, true);
      assert.equal(server.asked.length, 4);
      for (const asked of server.asked) {
        assert.equal(asked.line, "POST /v1/apps/shop/messages");
        assert.equal(asked.headers.authorization, "Bearer spk_test");
        assert.equal(asked.headers["idempotency-key"], sent.idempotencyKey);
        assert.deepEqual(JSON.parse(asked.body), request);
      }
      assert.match(sent.idempotencyKey, /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab]/);
    },
  ));

test("attempts are bounded", () =>
  withServer([answer(503, ""), answer(503, ""), answer(503, ""), answer(503, "")], async (server) => {
    await assert.rejects(server.sender().send(request), (error) => {
      return error instanceof ProblemError && error.problem.status === 503;
    });
    assert.equal(server.asked.length, 4);
  }));

test("Retry-After is waited for, and a long one is the caller's", () =>
  withServer(
    [
      answer(429, "", { "retry-after": "1" }),
      answer(202, message(1)),
      answer(429, "", { "retry-after": "3600" }),
    ],
    async (server) => {
      const began = performance.now();
      await server.sender().send(request);
      assert.ok(performance.now() - began >= 995);
      await assert.rejects(server.sender().send(request), { retryAfterMs: 3_600_000 });
    },
  ));

test("what the daemon refuses is not said again", () => {
  const problem = {
    type: "https://sextant/problems/content-rejected",
    title: "Rejected",
    status: 422,
    detail: "it has a word",
    rule: "words",
  };
  return withServer([answer(422, problem)], async (server) => {
    await assert.rejects(server.sender().send(request), (error) => {
      assert.ok(error instanceof ProblemError);
      assert.deepEqual(error.problem, problem);
      assert.equal(error.message, "422 Rejected: it has a word");
      return true;
    });
    assert.equal(server.asked.length, 1);
  });
});

test("an error that is no problem has its status", () =>
  withServer([answer(502, "<html>")], async (server) => {
    await assert.rejects(server.sender().send(request), { message: "502 Bad Gateway" });
  }));

test("a recall, a token and a removal are said once", () =>
  withServer([hangUp, answer(503, ""), hangUp], async (server) => {
    const sender = server.sender();
    await assert.rejects(sender.recall("7"), TransportError);
    await assert.rejects(sender.token("d", "30d"), ProblemError);
    await assert.rejects(sender.removeDevice("d"), TransportError);
    const lines = server.asked.map((asked) => asked.line);
    assert.deepEqual(lines, [
      "POST /v1/apps/shop/messages/7/recall",
      "POST /v1/apps/shop/devices/d/tokens",
      "DELETE /v1/apps/shop/devices/d",
    ]);
  }));

test("an attempt that has no answer in time is a transport error, and is made again", () =>
  withServer([() => undefined, answer(202, message(1))], async (server) => {
    const sender = server.sender({ patience: { attemptTimeMaxMs: 50 } });
    assert.equal((await sender.send(request)).message.id, "1");
  }));

test("a signal ends requests and waits", () =>
  withServer([answer(429, "", { "retry-after": "30" })], async (server) => {
    const abort = new AbortController();
    const sending = server.sender({ signal: abort.signal }).send(request);
    setTimeout(() => abort.abort(new Error("enough")), 50);
    await assert.rejects(sending, /enough/);
    await assert.rejects(server.sender({ signal: abort.signal }).send(request), TransportError);
  }));

test("keys and addresses that cannot be are refused before anything is said", async () => {
  const sender = new Sender("http://127.0.0.1:1", "shop", "spk");
  for (const key of ["", "a b", "a\r\nb", "x".repeat(129)]) {
    await assert.rejects(sender.send(request, key), RequestError);
  }
  for (const base of ["127.0.0.1", "ftp://a", "http://a?b", ""]) {
    assert.throws(() => new Sender(base, "shop", "spk"), RequestError);
  }
  assert.throws(() => new Sender("http://a", "shop", "spk\nx"), RequestError);
});

test("a batch tells of each message with its key", () => {
  const results = [
    { status: 202, message: message(1) },
    { status: 422, problem: { type: "about:blank", title: "No", status: 422, detail: "target" } },
  ];
  return withServer([hangUp, answer(200, { results })], async (server) => {
    const requests = [request, { ...request, idempotency_key: "own" }];
    const outcomes = await server.sender().sendBatch(requests);
    assert.equal(outcomes[0]?.message?.id, "1");
    assert.equal(outcomes[1]?.problem?.status, 422);
    assert.equal(outcomes[1]?.idempotencyKey, "own");
    assert.equal(server.asked[0]?.body, server.asked[1]?.body);
  });
});

/** Answers so many lines of a stream, and then ends or hangs up. */
function streamed(count: number, ends: boolean): Reply {
  return (response, asked) => {
    response.writeHead(200, { "content-type": "application/x-ndjson" });
    for (const line of asked.body.trim().split("\n").slice(0, count)) {
      const { data } = JSON.parse(line) as { data: { n: number } };
      response.write(`${JSON.stringify({ status: 202, message: message(data.n) })}\n`);
    }
    if (ends) {
      response.end();
    } else {
      setTimeout(() => response.destroy(), 50);
    }
  };
}

function* numbered(count: number): Generator<KeyedRequest> {
  for (let n = 0; n < count; n++) {
    yield { target: { device: "d" }, data: { n } };
  }
}

test("a stream that breaks goes on with what has no outcome, with the same keys", () =>
  withServer(
    [streamed(3, false), hangUp, ...Array.from({ length: 4 }, () => streamed(500, true))],
    async (server) => {
      const ids: number[] = [];
      const keys: string[] = [];
      for await (const outcome of server.sender().stream(numbered(1200))) {
        ids.push(Number(outcome.message?.id));
        keys.push(outcome.idempotencyKey);
      }
      assert.deepEqual(ids, [...Array(1200).keys()]);
      assert.equal(new Set(keys).size, 1200);
      const third = server.asked[2]?.body.split("\n")[0] ?? "";
      const { idempotency_key } = JSON.parse(third) as KeyedRequest;
      assert.equal(idempotency_key, keys[3]);
    },
  ));

test("a stream that the daemon ends goes on where it ended", () => {
  const problem = { type: "about:blank", title: "No", status: 503, detail: "" };
  const unavailable = `${JSON.stringify({ status: 503, problem })}\n`;
  return withServer(
    [answer(200, unavailable), streamed(2, true), streamed(500, true)],
    async (server) => {
      const ids: string[] = [];
      for await (const outcome of server.sender().stream(numbered(5))) {
        ids.push(outcome.message?.id ?? "");
      }
      assert.deepEqual(ids, ["0", "1", "2", "3", "4"]);
      assert.equal(server.asked.length, 3);
    },
  );
});

test("a message that is too long for a stream ends it behind those before", () =>
  withServer([streamed(500, true)], async (server) => {
    const [first, second, third] = [...numbered(3)] as [KeyedRequest, KeyedRequest, KeyedRequest];
    const long = { ...second, name: "x".repeat(70_000) };
    const stream = server.sender().stream([first, long, third]);
    assert.equal((await stream.next()).value?.message?.id, "0");
    await assert.rejects(stream.next(), RequestError);
    assert.equal((await stream.next()).done, true);
    assert.deepEqual(await server.sender().sendBatch([]), []);
    assert.equal(server.asked.length, 1);
  }));

test("a stream does not hold back what comes slowly", () =>
  withServer([streamed(1, true), streamed(1, true)], async (server) => {
    let go: () => void = () => undefined;
    const gate = new Promise<void>((resolve) => (go = resolve));
    async function* slow(): AsyncGenerator<KeyedRequest> {
      yield { target: { device: "d" }, data: { n: 0 } };
      await gate;
      yield { target: { device: "d" }, data: { n: 1 } };
    }
    const stream = server.sender().stream(slow());
    assert.equal((await stream.next()).value?.message?.id, "0");
    go();
    assert.equal((await stream.next()).value?.message?.id, "1");
    assert.equal((await stream.next()).done, true);
  }));

test("a stream that is refused says so, and one that is left asks for no more", () =>
  withServer([answer(403, ""), streamed(500, true)], async (server) => {
    const sender = server.sender();
    await assert.rejects(sender.stream(numbered(3)).next(), ProblemError);
    let taken = 0;
    let left = false;
    function* counted(): Generator<KeyedRequest> {
      try {
        for (const one of numbered(10_000)) {
          taken++;
          yield one;
        }
      } finally {
        left = true;
      }
    }
    for await (const outcome of sender.stream(counted())) {
      assert.equal(outcome.message?.id, "0");
      break;
    }
    assert.ok(taken <= 501, `${taken}`);
    assert.ok(left);
  }));

test("a message is watched until it has finished, over as many connections as it takes", () => {
  const event = (state: string, sent: number): string =>
    `event: funnel\r\ndata: ${JSON.stringify({ state, funnel: { sent } })}\r\n\r\n`;
  const stream = { "content-type": "text/event-stream" };
  return withServer(
    [
      answer(200, `: hello\n\nevent: other\ndata: x\n\n${event("running", 1)}`, stream),
      hangUp,
      answer(200, event("running", 1) + event("running", 2) + event("finished", 3), stream),
    ],
    async (server) => {
      const seen: [string, number][] = [];
      for await (const { state, funnel } of server.sender().live("7")) {
        seen.push([state, funnel.sent]);
      }
      assert.deepEqual(seen, [["running", 1], ["running", 2], ["finished", 3]]);
      assert.equal(server.asked[0]?.headers.accept, "text/event-stream");
    },
  );
});

test("pages are asked for until there are no more", () => {
  const entry = (seq: number): object => ({ kind: "fact", seq });
  return withServer(
    [
      answer(200, { entries: [entry(1), entry(2)], next: "c/2", incomplete: false }),
      hangUp,
      answer(200, { entries: [entry(3)], next: null, incomplete: false }),
    ],
    async (server) => {
      const seqs: number[] = [];
      for await (const { seq } of server.sender().audit({ device: "d&e", stages: ["sent", "shown"] })) {
        seqs.push(seq);
      }
      assert.deepEqual(seqs, [1, 2, 3]);
      const path = "GET /v1/apps/shop/audit?device=d%26e&stages=sent%2Cshown";
      assert.equal(server.asked[0]?.line, path);
      assert.equal(server.asked[2]?.line, `${path}&after=c%2F2`);
    },
  );
});

test("devices and lists are put, changed, removed and uploaded", () =>
  withServer(
    [
      answer(201, { device: "a/b c" }),
      answer(200, { device: "a/b c" }),
      answer(204, ""),
      answer(200, { registered: 2 }),
      answer(201, { list: "9" }),
      answer(200, { withdrawn: 2 }),
      answer(200, { targeted: 9 }),
    ],
    async (server) => {
      const sender = server.sender();
      await sender.putDevice("a/b c", { platform: "web" });
      await sender.updateDevice("a/b c", { alias: null });
      await sender.removeDevice("a/b c");
      async function* rows(): AsyncGenerator<string> {
        yield '{"device":"d0","platform":"p"}\n';
        yield '{"device":"d1","platform":"p"}\n';
      }
      assert.equal((await sender.importDevices(rows())).registered, 2);
      assert.equal((await sender.uploadList("csv", "device,name\nd0,Li\n")).list, "9");
      assert.equal((await sender.recall("7")).withdrawn, 2);
      assert.equal((await sender.funnel("7", "version")).targeted, 9);
      const [put, patch, remove, imported, list, , funnel] = server.asked;
      assert.equal(put?.line, "PUT /v1/apps/shop/devices/a%2Fb%20c");
      assert.equal(patch?.body, '{"alias":null}');
      assert.equal(remove?.line, "DELETE /v1/apps/shop/devices/a%2Fb%20c");
      assert.equal(imported?.body.split("\n").length, 3);
      assert.equal(imported?.headers["content-type"], "application/x-ndjson");
      assert.equal(list?.headers["content-type"], "text/csv");
      assert.equal(funnel?.line, "GET /v1/apps/shop/messages/7/funnel?by=version");
    },
  ));

test("an answer that is no JSON is an answer that is not understood", () =>
  withServer([answer(200, "{")], async (server) => {
    await assert.rejects(server.sender().message("7"), AnswerError);
  }));

test("waits spread over an interval that doubles up to the cap", () => {
  const longest: number[] = Array<number>(10).fill(0);
  const shortest: number[] = Array<number>(10).fill(Infinity);
  for (let i = 0; i < 2000; i++) {
    const backoff = new Backoff(1000, 120_000);
    for (let n = 0; n < 10; n++) {
      const wait = backoff.wait();
      longest[n] = Math.max(longest[n]!, wait);
      shortest[n] = Math.min(shortest[n]!, wait);
    }
  }
  for (let n = 0; n < 10; n++) {
    const limit = Math.min(1000 * 2 ** n, 120_000);
    assert.ok(longest[n]! <= limit && longest[n]! > limit * 0.9, `${n}: ${longest[n]}`);
    assert.ok(shortest[n]! < limit * 0.1, `${n}: ${shortest[n]}`);
  }
});

test("keys are UUIDs of version 7, and begin with the time", () => {
  const now = Date.UTC(2026, 10, 23, 10);
  const key = uuidV7(now);
  assert.match(key, /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  assert.equal(parseInt(key.replaceAll("-", "").slice(0, 12), 16), now);
  assert.notEqual(uuidV7(now), key);
});
