// What a person has written into the form, and the request that it makes.

import type { MessageRequest, Notification, Schedule, Target } from './push';

export type Kind = 'everyone' | 'expression' | 'device' | 'devices' | 'alias' | 'topic' | 'list';

export interface Draft {
  kind: Kind;
  expression: string;
  device: string;
  devices: string;
  alias: string;
  topic: string;
  list: string;
  name: string;
  notified: boolean;
  title: string;
  body: string;
  image: string;
  link: string;
  badge: number | null;
  sound: string;
  data: string;
  vars: { name: string; value: string }[];
  class: string;
  category: string;
  ttl: string;
  collapse_key: string;
  when: 'now' | 'at' | 'local';
  at: string;
  rate: number | null;
  test: boolean;
}

export function blank(): Draft {
  return {
    kind: 'everyone',
    expression: '',
    device: '',
    devices: '',
    alias: '',
    topic: '',
    list: '',
    name: '',
    notified: true,
    title: '',
    body: '',
    image: '',
    link: '',
    badge: null,
    sound: '',
    data: '',
    vars: [],
    class: 'operational',
    category: '',
    ttl: '24h',
    collapse_key: '',
    when: 'now',
    at: '',
    rate: null,
    test: false,
  };
}

/** What is wrong with a field, by its name. */
export type Faults = Partial<Record<'target' | 'content' | 'data' | 'ttl' | 'at' | 'rate' | 'badge', string>>;

const DEVICES_MAX = 1000;
const LIFE = /^[1-9]\d{0,8}(ms|s|m|h|d)$/;

function names(text: string): string[] {
  return [...new Set(text.split(/[\s,]+/).filter((name) => name !== ''))];
}

/** Whom the draft is for; null where that is not said yet. */
export function targetOf(draft: Draft): Target | null {
  switch (draft.kind) {
    case 'everyone':
      return { everyone: true };
    case 'devices': {
      const devices = names(draft.devices);
      return devices.length > 0 && devices.length <= DEVICES_MAX ? { devices } : null;
    }
    default: {
      const text = draft[draft.kind].trim();
      return text === '' ? null : ({ [draft.kind]: text } as unknown as Target);
    }
  }
}

export function varsOf(draft: Draft): Record<string, string> {
  const named = draft.vars.filter(({ name }) => name.trim() !== '');
  return Object.fromEntries(named.map(({ name, value }) => [name.trim(), value]));
}

export function notificationOf(draft: Draft): Notification | null {
  if (!draft.notified) return null;
  const { title, body, image, link, sound, badge } = draft;
  const texts = Object.entries({ title, body, image, link, sound }).filter(([, text]) => text !== '');
  return { ...Object.fromEntries(texts), ...(badge === null ? {} : { badge }) };
}

function scheduleOf(draft: Draft): Schedule | null {
  if (draft.when === 'now' || draft.at === '') return null;
  // The control leaves out seconds that are zero.
  const local = draft.at.length === 16 ? `${draft.at}:00` : draft.at;
  return draft.when === 'at' ? { at: new Date(draft.at).toISOString() } : { local };
}

function dataOf(draft: Draft): Record<string, unknown> | null {
  return draft.data.trim() === '' ? null : (JSON.parse(draft.data) as Record<string, unknown>);
}

export function faultsOf(draft: Draft): Faults {
  const faults: Faults = {};
  if (targetOf(draft) === null) {
    const many = draft.kind === 'devices' && names(draft.devices).length > DEVICES_MAX;
    faults.target = many ? 'At most 1,000 devices: upload a list for more.' : 'Say whom it is for.';
  }
  const notified = draft.notified && (draft.title !== '' || draft.body !== '');
  if (!notified && draft.data.trim() === '') faults.content = 'Write a title, a text or data.';
  try {
    const data: unknown = dataOf(draft);
    if (data !== null && (typeof data !== 'object' || Array.isArray(data))) {
      faults.data = 'Data is a JSON object: { … }.';
    }
  } catch (error) {
    faults.data = `This is not JSON: ${(error as Error).message}`;
  }
  if (draft.ttl !== '' && !LIFE.test(draft.ttl)) faults.ttl = 'Write a number and s, m, h or d, such as 24h.';
  if (draft.when !== 'now' && draft.at === '') faults.at = 'Say when.';
  const whole = (value: number | null, least: number): boolean =>
    value === null || (Number.isInteger(value) && value >= least);
  if (!whole(draft.rate, 1)) faults.rate = 'A whole number from 1 on.';
  if (!whole(draft.badge, 0)) faults.badge = 'A whole number.';
  return faults;
}

/** The request that a draft without faults makes: what was left empty is left out. */
export function requestOf(draft: Draft): MessageRequest {
  const target = targetOf(draft);
  if (target === null) throw new Error('a draft with faults makes no request');
  const request: MessageRequest = { target };
  const notification = notificationOf(draft);
  const data = dataOf(draft);
  const vars = varsOf(draft);
  const schedule = scheduleOf(draft);
  if (notification && Object.keys(notification).length > 0) request.notification = notification;
  if (data) request.data = data;
  if (Object.keys(vars).length > 0) request.vars = vars;
  if (schedule) request.schedule = schedule;
  if (draft.rate !== null) request.rate = draft.rate;
  if (draft.test) request.test = true;
  for (const key of ['name', 'class', 'category', 'ttl', 'collapse_key'] as const) {
    const text = draft[key].trim();
    if (text !== '') request[key] = text;
  }
  return request;
}
