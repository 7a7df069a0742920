/**
 * What the daemon is asked and what it answers. Times are RFC 3339, spans are `"30s"`, `"24h"`.
 * Answers may have more than is said here: later versions add to them.
 */
import type { Problem } from "./errors.js";

export type Json = null | boolean | number | string | Json[] | { [name: string]: Json };
export type JsonObject = { [name: string]: Json };

/** Whom a message is for. */
export type Target =
  | { device: string }
  | { /** Up to 1,000. */ devices: string[] }
  | { alias: string }
  | { /** The id of an uploaded list. */ list: string }
  | { topic: string }
  | { /** Such as `city:sz and not vip`. */ expression: string }
  | { everyone: true };

/** What a device shows; `{{name}}` in title and body stands for a variable. */
export interface Notification {
  title?: string;
  body?: string;
  /** The address of a picture. */
  image?: string;
  /** What a click opens. */
  link?: string;
  /** The number at the app's icon. */
  badge?: number;
  sound?: string;
}

/** When a message is sent: at a moment, or when each device's own clock on the wall shows it. */
export type Schedule = { at: string } | { local: string };

/** A message to send. */
export interface MessageRequest {
  target: Target;
  /** What people call it. */
  name?: string;
  /** What is shown; this or `data` or both. */
  notification?: Notification;
  /** What the app is given. */
  data?: JsonObject;
  /** Values of variables, for devices whose list gives none. */
  vars?: JsonObject;
  /** The class, which the policy's rules are about. */
  class?: string;
  /** What it is about: people turn categories off. */
  category?: string;
  /** How long it waits for a device that is not there. */
  ttl?: string;
  /** A later message of this key takes the place of one that still waits. */
  collapse_key?: string;
  /** At once without it. */
  schedule?: Schedule;
  /** At most so many devices a second. */
  rate?: number;
  /** Only to the test devices of the target. */
  test?: boolean;
}

/** A message to send, and what makes a second request the same one: at most 128 bytes. */
export interface KeyedRequest extends MessageRequest {
  idempotency_key?: string;
}

export type State =
  | "held"
  | "scheduled"
  | "running"
  | "finished"
  | "recalled"
  | "rejected"
  | "withdrawn";

/** A message, as the daemon knows it. */
export interface Message {
  id: string;
  app: string;
  name?: string | null;
  state: State;
  class: string;
  category?: string | null;
  priority: number;
  /** The name of the app key, or `admin`. */
  sender: string;
  target: Target;
  notification?: Notification | null;
  data?: JsonObject | null;
  /** How many devices it is for. */
  targets: number;
  /** How many names of the target are no device. */
  unknown: number;
  accepted_at: string;
  expires_at: string;
  schedule?: Schedule | null;
  collapse_key?: string | null;
  rate?: number | null;
  test?: boolean;
  /** The message that this one takes back. */
  recall_of?: string | null;
  /** What a review said, if there was one. */
  review?: Json;
  funnel: Funnel;
}

/** A message that was sent. */
export interface Sent {
  message: Message;
  /** Its key, as given or as made. */
  idempotencyKey: string;
  /** The daemon had it before, under the same key. */
  replayed: boolean;
}

/** What became of one message of a batch or a stream. */
export interface Outcome {
  /** Its key, as given or as made: with it the same message can be sent again. */
  idempotencyKey: string;
  /** The message, durable; absent if it was refused. */
  message?: Message;
  /** Why it was refused. */
  problem?: Problem;
}

/** What sending a message would do. All numbers are of devices. */
export interface DryRun {
  dry_run: true;
  judgement: "allowed" | "held" | "rejected";
  reason: string | null;
  targets: number;
  online: number;
  now: number;
  later: Record<string, number>;
  never: Record<string, number>;
}

/** What taking a message back did. */
export interface Recalled {
  id: string;
  /** How many devices will not get it. */
  withdrawn: number;
  /** The message that takes it back from those who have it. */
  recall_message: string | null;
}

/** What became of a message: numbers of distinct devices. */
export interface Funnel {
  targeted: number;
  /** Those that no rule dropped. */
  eligible: number;
  queued: number;
  sent: number;
  delivered: number;
  shown: number;
  clicked: number;
  expired: number;
  recalled: number;
  /** Those that rules dropped, by reason. */
  dropped: Record<string, number>;
  dropped_total: number;
  pending: number;
  in_flight: number;
  /** From accepted, or due, to acknowledged. */
  latency_ms: { count: number; p50: number; p90: number; p99: number; max: number } | null;
  /** By time, where that was asked for. */
  series?: { at: string; sent: number; delivered: number; shown: number; clicked: number }[];
  /** By what devices are, where that was asked for. */
  groups?: FunnelPart[];
}

/** A funnel of those devices that have something in common. */
export interface FunnelPart {
  /** A version, a platform, …; `null` where they have none. */
  value: string | null;
  targeted: number;
  sent: number;
  delivered: number;
  shown: number;
  clicked: number;
}

/** What a funnel is divided by. */
export type By = "time" | "version" | "platform" | "language" | "tag";

/** A message's state and numbers, told as they change. */
export interface Live {
  state: State;
  funnel: Funnel;
}

/** What a device is: all that a sender says of it. */
export interface DeviceEntry {
  platform: string;
  app_version?: string | null;
  /** Whose it is; several devices may have the same. */
  alias?: string | null;
  tags?: string[];
  attributes?: JsonObject;
  time_zone?: string | null;
  language?: string | null;
  /** Whether it is one of the app's test devices. */
  test?: boolean;
}

/** A device, as the daemon knows it. */
export interface DeviceRecord extends Required<DeviceEntry> {
  device: string;
  registered_at: string;
  updated_at: string;
  online: boolean;
  /** How many messages wait for it. */
  pending: number;
}

/** A change of what a device is. What is absent stays; `null` is no value from now on. */
export interface DeviceUpdate {
  platform?: string;
  app_version?: string | null;
  alias?: string | null;
  time_zone?: string | null;
  language?: string | null;
  test?: boolean;
  set_tags?: string[];
  remove_tags?: string[];
  set_attributes?: JsonObject;
  remove_attributes?: string[];
}

/** What an import of devices did. */
export interface Import {
  registered: number;
  updated: number;
  unchanged: number;
  refused: number;
  /** The first hundred lines that were refused. */
  errors: { line: number; detail: string }[];
}

/** What a device says to the broker to be let in. */
export interface Token {
  device: string;
  token: string;
  expires_at: string;
}

/** A list that was uploaded. */
export interface ListUpload {
  /** Its id, for a target. */
  list: string;
  devices: number;
  repeated: number;
  unknown: number;
  examples: { line: number; name: string }[];
  expires_at: string;
}

/** Something that was written down. */
export type Entry = Fact | Event;

/** A device and a message came to a stage. */
export interface Fact {
  kind: "fact";
  seq: number;
  at: string;
  message: string;
  device: string;
  stage:
    | "accepted"
    | "queued"
    | "sent"
    | "acknowledged"
    | "shown"
    | "clicked"
    | "dropped"
    | "expired"
    | "recalled";
  reason: string | null;
}

/** Something happened to a message, or somebody did something. */
export interface Event {
  kind: "event";
  seq: number;
  at: string;
  message: string | null;
  event: string;
  actor: string;
  detail: Json;
}

/** Which entries to read, oldest first. */
export interface AuditQuery {
  message?: string;
  device?: string;
  from?: string;
  to?: string;
  stages?: Fact["stage"][];
  events?: boolean;
  newest?: boolean;
  /** How many a page, at most 1,000. */
  limit?: number;
}

/** A part of a listing. */
export interface Page<T> {
  items: T[];
  /** What to ask for the next part with; `null` at the end. */
  next: string | null;
  /** Entries of the audit alone: some were not to be had. */
  incomplete: boolean;
}
