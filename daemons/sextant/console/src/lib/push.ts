// The push daemon's API, as its contract has it.

import { ask, withQuery } from './http';

export const BASE = '/api/push/v1';

export interface App {
  app: string;
  devices: number;
  test_devices: number;
  online: number;
  open_messages: number;
}

export type Role = 'send' | 'review' | 'read';

export interface Key {
  name: string;
  role: Role;
  created_at: string;
}

export interface Device {
  device: string;
  platform: string;
  app_version: string | null;
  alias: string | null;
  tags: string[];
  attributes: Record<string, string | number>;
  time_zone: string | null;
  language: string | null;
  test: boolean;
  registered_at: string;
  updated_at: string;
  online: boolean;
  pending: number;
}

export type Target =
  | { device: string }
  | { devices: string[] }
  | { alias: string }
  | { list: string }
  | { topic: string }
  | { expression: string }
  | { everyone: true };

export interface Notification {
  title?: string;
  body?: string;
  image?: string;
  link?: string;
  badge?: number;
  sound?: string;
}

export type Schedule = { at: string } | { local: string };

export interface MessageRequest {
  target: Target;
  name?: string;
  notification?: Notification;
  data?: Record<string, unknown>;
  vars?: Record<string, string>;
  class?: string;
  category?: string;
  ttl?: string;
  collapse_key?: string;
  schedule?: Schedule;
  rate?: number;
  test?: boolean;
  dry_run?: boolean;
}

export interface DryRun {
  dry_run: true;
  judgement: 'allowed' | 'held' | 'rejected';
  reason: string | null;
  targets: number;
  online: number;
  now: number;
  later: Record<string, number>;
  never: Record<string, number>;
}

export type State =
  | 'held'
  | 'scheduled'
  | 'running'
  | 'finished'
  | 'recalled'
  | 'rejected'
  | 'withdrawn';

/** How many devices reached each step in a stretch of time. */
export interface Moment {
  /** The beginning of the stretch. */
  at: string;
  sent: number;
  delivered: number;
  shown: number;
  clicked: number;
}

export interface Group {
  value: string | null;
  targeted: number;
  sent: number;
  delivered: number;
  shown: number;
  clicked: number;
}

export interface Funnel {
  targeted: number;
  eligible: number;
  queued: number;
  sent: number;
  delivered: number;
  shown: number;
  clicked: number;
  expired: number;
  recalled: number;
  dropped: Record<string, number>;
  dropped_total: number;
  pending: number;
  in_flight: number;
  latency_ms: { count: number; p50: number; p90: number; p99: number; max: number } | null;
  series?: Moment[];
  groups?: Group[];
}

export interface Message {
  id: string;
  app: string;
  state: State;
  class: string;
  priority: number;
  sender: string;
  target: Target;
  targets: number;
  unknown: number;
  accepted_at: string;
  expires_at: string;
  funnel: Funnel;
  // What was not asked for is null or left out.
  name?: string | null;
  category?: string | null;
  notification?: Notification | null;
  data?: Record<string, unknown> | null;
  vars?: Record<string, string> | null;
  schedule?: Schedule | null;
  collapse_key?: string | null;
  rate?: number | null;
  test?: boolean;
  recall_of?: string | null;
}

export interface Review {
  message: Message;
  reason: string;
  rule: string | null;
  text: string;
  since: string;
  expires_at: string;
}

export type Entry =
  | {
      kind: 'fact';
      seq: number;
      at: string;
      message: string;
      device: string;
      stage: string;
      reason: string | null;
    }
  | {
      kind: 'event';
      seq: number;
      at: string;
      message: string | null;
      event: string;
      actor: string | null;
      detail: Record<string, unknown> | null;
    };

export interface Status {
  version: string;
  uptime_s: number;
  cores: number;
  driver: string;
  connections: number;
  sessions: number;
  subscriptions: number;
  retained: number;
  held: number;
  throttled: number;
  messages_in: number;
  messages_out: number;
  connects: { waiting: number; delayed: number; refused: number };
  log: { bytes: number; segments: number; durability: string; read_only: boolean };
}

/** The end of the audit, whose hash is over everything before it. */
export interface Head {
  seq: number;
  hash: string;
}

export interface Platform {
  devices: number;
  online: number;
  open_messages: number;
  in_flight: number;
  log_bytes: number;
  facts?: number;
  audit_bytes?: number;
  /** Its head, by itself or with how large it is. */
  audit: Partial<Head> & { records?: number; bytes?: number; head?: Head | null };
}

export interface Drain {
  draining: boolean;
  server?: string;
  moved?: boolean;
  left: number;
  sent_away: number;
}

export interface UploadedList {
  list: string;
  devices: number;
  repeated: number;
  unknown: number;
  examples: { line: number; name: string }[];
  expires_at: string;
}

export interface Page {
  next: string | null;
}

export interface AuditFilter {
  message?: string | undefined;
  device?: string | undefined;
  from?: string | undefined;
  to?: string | undefined;
  stages?: string | undefined;
  events?: boolean | undefined;
  newest?: boolean | undefined;
}

type Signal = AbortSignal | undefined;

const part = encodeURIComponent;
const of = (app: string): string => `${BASE}/apps/${part(app)}`;

export const push = {
  status: (signal?: Signal) => ask<Status>(`${BASE}/status`, { signal }),
  platform: (signal?: Signal) => ask<Platform>(`${BASE}/platform`, { signal }),
  drain: (signal?: Signal) => ask<Drain>(`${BASE}/drain`, { signal }),

  apps: (signal?: Signal) => ask<{ apps: App[] }>(`${BASE}/apps`, { signal }),
  createApp: (app: string) => ask<App>(of(app), { method: 'PUT' }),
  policy: (signal?: Signal) => ask<Record<string, unknown>>(`${BASE}/policy`, { signal }),
  keys: (app: string, signal?: Signal) => ask<{ keys: Key[] }>(`${of(app)}/keys`, { signal }),
  createKey: (app: string, name: string, role: Role) =>
    ask<Key & { key: string }>(`${of(app)}/keys`, { method: 'POST', body: { name, role } }),
  deleteKey: (app: string, name: string) =>
    ask<void>(`${of(app)}/keys/${part(name)}`, { method: 'DELETE' }),

  devices: (
    app: string,
    query: { expression?: string; limit?: number; after?: string | null },
    signal?: Signal,
  ) =>
    ask<Page & { devices: Device[]; total: number }>(withQuery(`${of(app)}/devices`, query), {
      signal,
    }),
  device: (app: string, device: string, signal?: Signal) =>
    ask<Device>(`${of(app)}/devices/${part(device)}`, { signal }),
  issueToken: (app: string, device: string, ttl: string) =>
    ask<{ device: string; token: string; expires_at: string }>(
      `${of(app)}/devices/${part(device)}/tokens`,
      { method: 'POST', body: { ttl } },
    ),
  revokeTokens: (app: string, device: string) =>
    ask<void>(`${of(app)}/devices/${part(device)}/tokens`, { method: 'DELETE' }),
  count: (app: string, whom: { target: Target; test?: boolean }, signal?: Signal) =>
    ask<{ devices: number; online: number; unknown: number }>(`${of(app)}/targets/count`, {
      method: 'POST',
      body: whom,
      signal,
    }),

  uploadList: (app: string, file: Blob, type: string) =>
    ask<UploadedList>(`${of(app)}/lists`, {
      method: 'POST',
      body: file,
      headers: { 'content-type': type },
    }),

  messages: (
    app: string,
    query: { state?: string; limit?: number; after?: string | null },
    signal?: Signal,
  ) => ask<Page & { messages: Message[] }>(withQuery(`${of(app)}/messages`, query), { signal }),
  message: (app: string, id: string, signal?: Signal) =>
    ask<Message>(`${of(app)}/messages/${part(id)}`, { signal }),
  send: (app: string, message: MessageRequest, idempotencyKey: string) =>
    ask<Message>(`${of(app)}/messages`, {
      method: 'POST',
      body: message,
      headers: { 'idempotency-key': idempotencyKey },
    }),
  dryRun: (app: string, message: MessageRequest) =>
    ask<DryRun>(`${of(app)}/messages`, { method: 'POST', body: { ...message, dry_run: true } }),
  recall: (app: string, id: string) =>
    ask<{ id: string; withdrawn: number; recall_message: string | null }>(
      `${of(app)}/messages/${part(id)}/recall`,
      { method: 'POST' },
    ),
  funnel: (app: string, id: string, by: string, signal?: Signal) =>
    ask<Funnel>(withQuery(`${of(app)}/messages/${part(id)}/funnel`, { by }), { signal }),
  live: (app: string, id: string) => `${of(app)}/messages/${part(id)}/live`,

  reviews: (app: string, signal?: Signal) =>
    ask<{ reviews: Review[] }>(`${of(app)}/reviews`, { signal }),
  review: (app: string, id: string, verdict: 'approve' | 'reject', note: string) =>
    ask<Message>(`${of(app)}/reviews/${part(id)}`, { method: 'POST', body: { verdict, note } }),

  audit: (
    app: string,
    query: AuditFilter & { limit?: number; after?: string | null },
    signal?: Signal,
  ) =>
    ask<Page & { entries: Entry[]; incomplete: boolean }>(
      withQuery(`${of(app)}/audit`, { ...query }),
      { signal },
    ),
  auditExport: (app: string, query: AuditFilter) =>
    withQuery(`${of(app)}/audit/export`, { ...query }),
};
