// A stand-in for `sextant up` while pages are written: the built pages, a login, and as much of the
// push daemon's contract as they use, in memory. It proves nothing about the daemon.

import { randomBytes, randomUUID } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { extname, join } from 'node:path';

type Json = Record<string, unknown>;

interface Answer {
  status?: number;
  body?: unknown;
  headers?: Record<string, string>;
}

const TYPES: Record<string, string> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript',
  '.css': 'text/css',
  '.svg': 'image/svg+xml',
};

class Refused extends Error {
  constructor(
    readonly status: number,
    readonly detail: string,
    readonly kind = 'about:blank',
  ) {
    super(detail);
  }
}

interface FakeDevice extends Json {
  device: string;
  tags: string[];
  attributes: Json;
  alias: string | null;
  test: boolean;
  online: boolean;
}

interface FakeFunnel extends Json {
  targeted: number;
  eligible: number;
  sent: number;
  delivered: number;
  shown: number;
  clicked: number;
  pending: number;
}

interface FakeMessage extends Json {
  id: string;
  state: string;
  targets: number;
  funnel: FakeFunnel;
  accepted_at: string;
}

interface FakeApp {
  devices: Map<string, FakeDevice>;
  keys: Json[];
  messages: FakeMessage[];
  reviews: Json[];
  entries: Json[];
  lists: Map<string, number>;
}

export interface Fake {
  url: string;
  link: string;
  token: string;
  apps: Map<string, FakeApp>;
  close(): Promise<void>;
}

const ago = (seconds: number): string => new Date(Date.now() - seconds * 1000).toISOString();

function funnel(targeted: number, part: number): FakeFunnel {
  const dropped = Math.round(targeted * 0.06);
  const eligible = targeted - dropped;
  const sent = Math.round(eligible * part);
  const delivered = Math.round(sent * 0.93);
  const shown = Math.round(delivered * 0.61);
  return {
    targeted,
    eligible,
    queued: eligible,
    sent,
    delivered,
    shown,
    clicked: Math.round(shown * 0.18),
    expired: part === 1 ? eligible - delivered : 0,
    recalled: 0,
    dropped: dropped > 0 ? { daily_quota: Math.ceil(dropped * 0.7), frequency_cap: Math.floor(dropped * 0.3) } : {},
    dropped_total: dropped,
    pending: eligible - sent,
    in_flight: sent - delivered,
    latency_ms: delivered > 0 ? { count: delivered, p50: 38, p90: 412, p99: 21_400, max: 912_000 } : null,
  };
}

function emptyApp(): FakeApp {
  return { devices: new Map(), keys: [], messages: [], reviews: [], entries: [], lists: new Map() };
}

function device(app: FakeApp, id: string, more: Json = {}): FakeDevice {
  const made: FakeDevice = {
    device: id,
    platform: 'android',
    app_version: null,
    alias: null,
    tags: [],
    attributes: {},
    time_zone: null,
    language: null,
    test: false,
    registered_at: ago(864_000),
    updated_at: ago(3600),
    online: false,
    pending: 0,
    ...more,
  };
  app.devices.set(id, made);
  return made;
}

function message(app: string, request: Json, state: string, targeted: number, part: number, age: number): FakeMessage {
  return {
    id: randomUUID(),
    app,
    name: request['name'] ?? null,
    state,
    class: request['class'] ?? 'operational',
    category: request['category'] ?? null,
    priority: 5,
    sender: request['sender'] ?? 'admin',
    target: request['target'],
    notification: request['notification'] ?? null,
    data: request['data'] ?? null,
    targets: targeted,
    unknown: 0,
    accepted_at: ago(age),
    expires_at: ago(age - 86_400),
    schedule: request['schedule'] ?? null,
    collapse_key: request['collapse_key'] ?? null,
    rate: request['rate'] ?? null,
    test: request['test'] ?? false,
    recall_of: null,
    review: null,
    funnel: funnel(targeted, part),
  };
}

function note(app: FakeApp, entry: Json): void {
  app.entries.push({ seq: app.entries.length + 1, at: new Date().toISOString(), ...entry });
}

function demo(apps: Map<string, FakeApp>): void {
  const shop = emptyApp();
  apps.set('shop', shop);
  apps.set('fleet', emptyApp());
  const platforms = ['android', 'ios', 'harmony', 'web'];
  for (let n = 1; n <= 240; n++) {
    device(shop, `phone-${String(n).padStart(4, '0')}`, {
      platform: platforms[n % 4],
      app_version: `2.${n % 3}.${n % 5}`,
      alias: `user-${Math.ceil(n / 2)}`,
      tags: n % 7 === 0 ? ['vip', 'beta'] : n % 3 === 0 ? ['vip'] : [],
      attributes: { city: n % 2 ? 'sz' : 'gz', age: 18 + (n % 50) },
      time_zone: 'Asia/Shanghai',
      language: n % 5 ? 'zh-CN' : 'en-US',
      test: n % 60 === 0,
      online: n % 4 !== 1,
      pending: n % 11 === 0 ? 2 : 0,
    });
  }
  shop.keys.push({ name: 'crm', role: 'send', created_at: ago(500_000) }, { name: 'legal', role: 'review', created_at: ago(90_000) });
  const autumn = {
    name: 'Autumn sale, first wave',
    class: 'marketing',
    category: 'sale',
    sender: 'crm',
    target: { expression: 'vip and city:sz and app_version >= 2.1' },
    notification: { title: 'Hi {{name}}, 30% off this weekend', body: 'Your favourites are waiting. The sale ends on Sunday at midnight.', link: 'https://shop.example/sale', image: 'https://shop.example/sale.jpg', badge: 1 },
    data: { campaign: 'autumn', wave: 1 },
  };
  const seeds: [Json, string, number, number, number][] = [
    [autumn, 'running', 1_204_377, 0.62, 240],
    [{ ...autumn, name: 'Autumn sale, second wave', schedule: { local: '2026-11-28T09:00:00' } }, 'scheduled', 882_010, 0, 900],
    [{ name: 'Server maintenance', sender: 'ops', target: { everyone: true }, notification: { title: 'Maintenance tonight', body: 'From 02:00 to 02:20.' } }, 'finished', 2_310_002, 1, 86_000],
    [{ name: 'Wrong price', class: 'marketing', sender: 'crm', target: { topic: 'offers' }, notification: { title: 'Only 0.99!' } }, 'recalled', 41_877, 0.4, 172_000],
    [{ target: { device: 'phone-0007' }, data: { refresh: ['cart', 'prices'] } }, 'finished', 1, 1, 200_000],
    [{ name: 'Casino night', class: 'marketing', sender: 'partner', target: { everyone: true }, notification: { title: 'Win big' } }, 'rejected', 2_300_000, 0, 300_000],
  ];
  for (const [request, state, targeted, part, age] of seeds) shop.messages.push(message('shop', request, state, targeted, part, age));
  for (let n = 1; n <= 30; n++) {
    shop.messages.push(message('shop', { name: `Order update ${n}`, target: { alias: `user-${n}` }, notification: { title: 'Your order' } }, 'finished', 2, 1, 400_000 + n * 1000));
  }
  const held = message('shop', { ...autumn, name: 'Double points week', target: { everyone: true } }, 'held', 2_310_002, 0, 1500);
  shop.messages.unshift(held);
  shop.reviews.push({ message: held, reason: 'content_review', rule: 'money-words', text: 'The text speaks of money: “30% off”', since: ago(1500), expires_at: ago(-84_900) });
  const held2 = message('shop', { name: 'Survey', class: 'marketing', sender: 'partner', target: { expression: 'not vip' }, data: { survey: 'q4', pages: 3 } }, 'held', 120_400, 0, 8000);
  shop.messages.unshift(held2);
  shop.reviews.push({ message: held2, reason: 'class_review', rule: null, text: 'every message of its class is reviewed', since: ago(8000), expires_at: ago(-78_400) });
  const first = shop.messages.find((one) => one['name'] === 'Server maintenance');
  note(shop, { kind: 'event', at: ago(86_001), message: first?.id, event: 'requested', actor: 'ops', detail: { target: { everyone: true }, class: 'operational' } });
  note(shop, { kind: 'event', at: ago(86_000.8), message: first?.id, event: 'judged', actor: null, detail: { judgement: 'allowed' } });
  for (let n = 1; n <= 60; n++) {
    const id = `phone-${String(n).padStart(4, '0')}`;
    const base = 86_000 - n * 0.05;
    note(shop, { kind: 'fact', at: ago(base), message: first?.id, device: id, stage: 'queued', reason: null });
    if (n % 9 === 0) {
      note(shop, { kind: 'fact', at: ago(base - 0.2), message: first?.id, device: id, stage: 'dropped', reason: 'daily_quota' });
      continue;
    }
    note(shop, { kind: 'fact', at: ago(base - 0.1), message: first?.id, device: id, stage: 'sent', reason: null });
    note(shop, { kind: 'fact', at: ago(base - 0.142), message: first?.id, device: id, stage: 'acknowledged', reason: null });
    if (n % 2) note(shop, { kind: 'fact', at: ago(base - 31.5), message: first?.id, device: id, stage: 'shown', reason: null });
    if (n % 6 === 1) note(shop, { kind: 'fact', at: ago(base - 95), message: first?.id, device: id, stage: 'clicked', reason: null });
  }
}

/** Of expressions, as much as the tests say: words that are tags, and `key:value`, joined by `and`. */
function fits(one: FakeDevice, expression: string): boolean {
  if (/[()]\s*$|[<>=]\s*$|:\s*$/.test(expression)) throw new Refused(422, `\`expression\`: a value is missing at ${expression.length}`);
  return expression
    .split(/\s+and\s+/)
    .filter((part) => part !== '')
    .every((part) => {
      const no = part.startsWith('not ');
      const [key = '', value] = part.replace(/^not /, '').split(':');
      const yes = value === undefined ? one.tags.includes(key) : String(one[key] ?? one.attributes[key]) === value;
      return yes !== no;
    });
}

function targets(app: FakeApp, target: Json): FakeDevice[] {
  const all = [...app.devices.values()];
  if (target['everyone']) return all;
  if (target['device']) return all.filter((one) => one.device === target['device']);
  if (target['devices']) return all.filter((one) => (target['devices'] as string[]).includes(one.device));
  if (target['alias']) return all.filter((one) => one.alias === target['alias']);
  if (target['list']) return all.slice(0, app.lists.get(String(target['list'])) ?? 0);
  if (target['topic']) return [];
  return all.filter((one) => fits(one, String(target['expression'])));
}

function judge(request: Json): { judgement: string; reason: string | null } {
  const text = JSON.stringify(request['notification'] ?? {});
  if (text.includes('casino')) return { judgement: 'rejected', reason: 'content_rejected' };
  if (text.includes('money')) return { judgement: 'held', reason: 'content_review' };
  return { judgement: 'allowed', reason: null };
}

async function read(request: IncomingMessage): Promise<string> {
  let text = '';
  for await (const piece of request) text += String(piece);
  return text;
}

function page<T>(all: T[], query: URLSearchParams): { rows: T[]; next: string | null } {
  const from = Number(query.get('after') ?? 0);
  const limit = Number(query.get('limit') ?? 100);
  return { rows: all.slice(from, from + limit), next: from + limit < all.length ? String(from + limit) : null };
}

function appOf(apps: Map<string, FakeApp>, name: string): FakeApp {
  const app = apps.get(name);
  if (!app) throw new Refused(404, `there is no app ${name}`);
  return app;
}

function told(name: string, app: FakeApp): Json {
  const all = [...app.devices.values()];
  return {
    app: name,
    devices: all.length,
    test_devices: all.filter((one) => one.test).length,
    online: all.filter((one) => one.online).length,
    open_messages: app.messages.filter((one) => ['running', 'scheduled', 'held'].includes(one.state)).length,
  };
}

function withParts(whole: FakeFunnel, by: string | null): FakeFunnel {
  const part = (value: string | null, share: number): Json => ({
    value,
    targeted: Math.round(whole.targeted * share),
    sent: Math.round(whole.sent * share),
    delivered: Math.round(whole.delivered * share),
    shown: Math.round(whole.shown * share),
    clicked: Math.round(whole.clicked * share),
  });
  if (by === 'time') {
    const rising = (value: number, n: number): number => Math.round(value * (1 - Math.exp(-n / 12)));
    const series = Array.from({ length: 60 }, (_, n) => ({
      at: ago((60 - n) * 10),
      sent: rising(whole.sent, n),
      delivered: rising(whole.delivered, n),
      shown: rising(whole.shown, Math.max(0, n - 4)),
      clicked: rising(whole.clicked, Math.max(0, n - 9)),
    }));
    return { ...whole, series };
  }
  const values: Record<string, (string | null)[]> = {
    version: ['2.2.0', '2.1.4', '2.0.9', null],
    platform: ['android', 'ios', 'harmony', 'web'],
    language: ['zh-CN', 'en-US', null],
    tag: ['vip', 'beta'],
  };
  const shares = [0.55, 0.28, 0.12, 0.05];
  return { ...whole, groups: (values[by ?? ''] ?? []).map((value, n) => part(value, shares[n] ?? 0)) };
}

async function messagesOf(name: string, app: FakeApp, rest: string[], request: IncomingMessage, query: URLSearchParams, seen: Map<string, FakeMessage>): Promise<Answer> {
  const [id, what] = rest;
  const method = request.method ?? 'GET';
  if (id === undefined && method === 'GET') {
    const state = query.get('state');
    const { rows, next } = page(app.messages.filter((one) => !state || one.state === state), query);
    return { body: { messages: rows, next } };
  }
  if (id === undefined) {
    const body = JSON.parse(await read(request)) as Json;
    const found = targets(app, body['target'] as Json).filter((one) => !body['test'] || one.test);
    const { judgement, reason } = judge(body);
    if (body['dry_run']) {
      const later = Math.floor(found.length / 10);
      return { body: { dry_run: true, judgement, reason, targets: found.length, online: found.filter((one) => one.online).length, now: found.length - later, later: later ? { quiet_hours: later } : {}, never: {} } };
    }
    if (judgement === 'rejected') throw new Refused(422, 'a content rule rejected it', 'urn:sextant:problem:content-rejected');
    const key = String(request.headers['idempotency-key'] ?? randomUUID());
    const before = seen.get(key);
    if (before) return { body: before, headers: { 'idempotency-replayed': 'true' } };
    const made = message(name, body, judgement === 'held' ? 'held' : body['schedule'] ? 'scheduled' : 'running', found.length, 0, 0);
    made.funnel['dropped'] = {};
    Object.assign(made.funnel, { eligible: found.length, pending: found.length, dropped_total: 0 });
    seen.set(key, made);
    app.messages.unshift(made);
    if (made.state === 'held') app.reviews.push({ message: made, reason, rule: 'money-words', text: 'The text speaks of money', since: ago(0), expires_at: ago(-86_400) });
    note(app, { kind: 'event', message: made.id, event: 'requested', actor: 'admin', detail: {} });
    return { status: 202, body: made };
  }
  const found = app.messages.find((one) => one.id === id);
  if (!found) throw new Refused(404, `no message ${id} is known`);
  if (what === 'recall') {
    if (found.state === 'recalled') throw new Refused(409, 'it was recalled before');
    found.state = 'recalled';
    Object.assign(found.funnel, { recalled: found.funnel.pending, pending: 0 });
    return { body: { id, withdrawn: found.funnel['recalled'], recall_message: null } };
  }
  if (what === 'funnel') return { body: withParts(found.funnel, query.get('by')) };
  return { body: found };
}

/** Lets what runs go on, and tells it. */
function live(found: FakeMessage, response: ServerResponse): void {
  response.writeHead(200, { 'content-type': 'text/event-stream' });
  const tell = (): void => {
    const { funnel: now } = found;
    if (found.state === 'running') {
      const step = Math.max(1, Math.round(now.eligible / 40));
      now.sent = Math.min(now.eligible, now.sent + step);
      now.delivered = Math.min(now.sent, now.delivered + step);
      now.pending = now.eligible - now.sent;
      now['in_flight'] = now.sent - now.delivered;
      now['latency_ms'] = { count: now.delivered, p50: 38, p90: 412, p99: 21_400, max: 912_000 };
      if (now.delivered >= now.eligible) found.state = 'finished';
    }
    response.write(`event: funnel\ndata: ${JSON.stringify({ state: found.state, funnel: now })}\n\n`);
    if (found.state === 'finished' || found.state === 'recalled') {
      clearInterval(timer);
      response.end();
    }
  };
  const timer = setInterval(tell, 1000);
  response.on('close', () => clearInterval(timer));
  tell();
}

async function push(apps: Map<string, FakeApp>, path: string[], request: IncomingMessage, query: URLSearchParams, state: { began: number; drained: boolean; seen: Map<string, FakeMessage> }): Promise<Answer> {
  const [first, name, kind, ...rest] = path;
  const method = request.method ?? 'GET';
  const up = (Date.now() - state.began) / 1000;
  const all = [...apps.values()].flatMap((app) => [...app.devices.values()]);
  if (first === 'status') {
    const wave = Math.sin(up / 9) * 300;
    return { body: { version: '0.1.0', uptime_s: Math.floor(up) + 93_000, cores: 2, driver: 'io_uring', connections: 204_310 + Math.round(wave), connects: { waiting: 0, delayed: 12, refused: 3 }, throttled: 0, sessions: 240_112, subscriptions: 481_003, retained: 18, held: 5120, messages_in: Math.round(1e6 + up * 812 + wave), messages_out: Math.round(4e6 + up * 12_400 + wave * 20), log: { bytes: 8_123_456_789, segments: 121, durability: 'always', read_only: false } } };
  }
  if (first === 'platform') {
    return { body: { devices: all.length, online: all.filter((one) => one.online).length, open_messages: 2, in_flight: 51_200, facts: 48_112_003, audit: { records: 1_204_112, bytes: 611_203_004, head: { seq: 1_204_112, hash: '9f2c4e1ab07d5a36c81f0be2d94a7760c5b3e812f6a90d4471e85c2b3fd6a90e' } }, log_bytes: 90_112_334 } };
  }
  if (first === 'drain') return { body: { draining: false, left: 0, sent_away: 0 } };
  if (first === 'policy') return { body: { classes: { marketing: {}, operational: {}, transactional: {} } } };
  if (first !== 'apps') throw new Refused(404, 'there is nothing at this path');
  if (name === undefined) return { body: { apps: [...apps].map(([name, app]) => told(name, app)) } };
  if (kind === undefined) {
    if (method === 'PUT') {
      if (!/^[a-z0-9_-]{1,32}$/.test(name)) throw new Refused(422, `\`app\`: ${name} is no name of an app`);
      const there = apps.has(name);
      if (!there) apps.set(name, emptyApp());
      return { status: there ? 200 : 201, body: told(name, appOf(apps, name)) };
    }
    return { body: told(name, appOf(apps, name)) };
  }
  const app = appOf(apps, name);
  if (kind === 'keys') {
    if (method === 'POST') {
      const body = JSON.parse(await read(request)) as Json;
      if (app.keys.some((key) => key['name'] === body['name'])) throw new Refused(409, 'there is a key of this name');
      const made = { ...body, created_at: ago(0) };
      app.keys.push(made);
      return { status: 201, body: { ...made, key: `spk_${randomBytes(24).toString('base64url')}` } };
    }
    if (method === 'DELETE') {
      app.keys = app.keys.filter((key) => key['name'] !== rest[0]);
      return { status: 204 };
    }
    return { body: { keys: app.keys } };
  }
  if (kind === 'devices') {
    const [id, what] = rest;
    if (id === undefined) {
      const found = [...app.devices.values()].filter((one) => fits(one, query.get('expression') ?? ''));
      const { rows, next } = page(found, query);
      return { body: { devices: rows, total: found.length, next } };
    }
    if (method === 'PUT' && what === undefined) {
      const there = app.devices.has(id);
      return { status: there ? 200 : 201, body: device(app, id, JSON.parse(await read(request)) as Json) };
    }
    const one = app.devices.get(id);
    if (!one) throw new Refused(404, `there is no device ${id}`);
    if (what === 'tokens' && method === 'POST') return { body: { device: id, token: `sxd2.${randomBytes(33).toString('base64url')}`, expires_at: ago(-30 * 86_400) } };
    if (what === 'tokens') {
      one.online = false;
      return { status: 204 };
    }
    return { body: one };
  }
  if (kind === 'targets') {
    const body = JSON.parse(await read(request)) as { target: Json };
    const found = targets(app, body.target);
    const named = (body.target['devices'] as string[] | undefined)?.length ?? (body.target['device'] ? 1 : 0);
    return { body: { devices: found.length, online: found.filter((one) => one.online).length, unknown: Math.max(0, named - found.length) } };
  }
  if (kind === 'lists') {
    const lines = (await read(request)).trim().split('\n');
    const list = randomUUID();
    const known = lines.filter((line) => [...app.devices.keys()].some((id) => line.startsWith(id))).length;
    app.lists.set(list, known);
    return { status: 201, body: { list, devices: known, repeated: 0, unknown: lines.length - 1 - known, examples: known < lines.length - 1 ? [{ line: 2, name: 'nobody' }] : [], expires_at: ago(-86_400) } };
  }
  if (kind === 'messages') return messagesOf(name, app, rest, request, query, state.seen);
  if (kind === 'reviews') {
    if (method === 'GET') return { body: { reviews: app.reviews } };
    const found = app.reviews.find((review) => (review['message'] as FakeMessage).id === rest[0]);
    if (!found) throw new Refused(409, 'its review has ended');
    const { verdict } = JSON.parse(await read(request)) as Json;
    const judged = found['message'] as FakeMessage;
    judged.state = verdict === 'approve' ? 'running' : 'rejected';
    app.reviews = app.reviews.filter((review) => review !== found);
    return { body: judged };
  }
  if (kind === 'audit') {
    const stages = query.get('stages')?.split(',');
    const found = app.entries.filter(
      (entry) =>
        (!query.get('message') || entry['message'] === query.get('message')) &&
        (!query.get('device') || entry['device'] === query.get('device')) &&
        (entry['kind'] === 'event' ? query.get('events') !== 'false' : !stages || stages.includes(String(entry['stage']))) &&
        (!query.get('from') || String(entry['at']) >= String(query.get('from'))) &&
        (!query.get('to') || String(entry['at']) < String(query.get('to'))),
    );
    if (query.get('newest') === 'true') found.reverse();
    const { rows, next } = page(found, query);
    return { body: { entries: rows, next, incomplete: false } };
  }
  throw new Refused(404, 'there is nothing at this path');
}

async function asset(path: string, response: ServerResponse, dist: string): Promise<void> {
  const name = path === '/' ? 'index.html' : path.slice(1);
  try {
    if (name.includes('..')) throw new Error('no');
    const body = await readFile(join(dist, name));
    response.writeHead(200, { 'content-type': TYPES[extname(name)] ?? 'application/octet-stream' });
    response.end(body);
  } catch {
    response.writeHead(404).end();
  }
}

/** Starts it on a free port, or on `port`. */
export async function start(dist: string, port = 0, filled = true): Promise<Fake> {
  const apps = new Map<string, FakeApp>();
  if (filled) demo(apps);
  const token = randomBytes(32).toString('base64url');
  const links = new Set<string>();
  const sessions = new Set<string>();
  const state = { began: Date.now(), drained: false, seen: new Map<string, FakeMessage>() };

  const server = createServer((request, response) => {
    const url = new URL(request.url ?? '/', 'http://fake');
    const inside = [...sessions].some((session) => request.headers.cookie?.includes(session));
    response.setHeader('content-security-policy', "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'");
    const answer = ({ status = 200, body, headers = {} }: Answer): void => {
      response.writeHead(status, { 'content-type': 'application/json', ...headers });
      response.end(body === undefined ? undefined : JSON.stringify(body));
    };
    const refuse = (status: number, detail: string, kind = 'about:blank'): void => {
      response.writeHead(status, { 'content-type': 'application/problem+json' });
      response.end(JSON.stringify({ type: kind, title: `Status ${status}`, status, detail }));
    };
    const work = async (): Promise<void> => {
      if (url.pathname === '/session') {
        if (request.method === 'DELETE') {
          sessions.clear();
          return answer({ status: 204 });
        }
        if (request.method === 'POST') {
          const body = JSON.parse(await read(request)) as Json;
          if (!links.delete(String(body['link'])) && body['token'] !== token) return refuse(401, body['link'] ? 'this login link was used already or is older than an hour' : 'this is not the admin token');
          const session = randomBytes(16).toString('hex');
          sessions.add(session);
          return answer({ status: 204, headers: { 'set-cookie': `sextant_session=${session}; HttpOnly; SameSite=Strict; Path=/` } });
        }
        return inside ? answer({ body: { version: '0.1.0', daemons: ['push'], expires_at: ago(-43_200) } }) : refuse(401, 'log in first');
      }
      if (!url.pathname.startsWith('/api/push/v1/')) return asset(url.pathname, response, dist);
      if (!inside) return refuse(401, 'log in first');
      const path = url.pathname.slice('/api/push/v1/'.length).split('/').map(decodeURIComponent);
      if (path[4] === 'live') {
        const found = apps.get(path[1] ?? '')?.messages.find((one) => one.id === path[3]);
        return found ? live(found, response) : refuse(404, 'no such message');
      }
      if (path[3] === 'export') {
        const told = await push(apps, path.slice(0, 3), request, url.searchParams, state);
        response.writeHead(200, { 'content-type': 'application/x-ndjson' });
        response.end((told.body as { entries: Json[] }).entries.map((entry) => `${JSON.stringify(entry)}\n`).join(''));
        return;
      }
      answer(await push(apps, path, request, url.searchParams, state));
    };
    work().catch((error: unknown) => {
      if (error instanceof Refused) refuse(error.status, error.detail, error.kind);
      else refuse(500, String(error));
    });
  });
  await new Promise<void>((ready) => server.listen(port, '127.0.0.1', ready));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
  const link = randomBytes(32).toString('base64url');
  links.add(link);
  return {
    url,
    link: `${url}#login=${link}`,
    token,
    apps,
    close: () =>
      new Promise((done) => {
        server.close(() => done());
        server.closeAllConnections();
      }),
  };
}
