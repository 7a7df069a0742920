// What the daemon's names mean, in words.

import type { State, Target } from './push';
import { count } from './format';

const REASONS: Record<string, string> = {
  expired: 'its time to live had ended',
  scheduled: 'its time has not come in the device’s zone',
  outside_hours: 'outside the hours of its class, on the device’s clock',
  quiet_hours: 'in the app’s quiet hours, on the device’s clock',
  expires_outside_hours: 'it expires before the hours of its class begin',
  expires_in_quiet_hours: 'it expires before the quiet hours end',
  no_hours: 'class hours and quiet hours leave no minute of the day',
  beyond_schedule: 'its time is further ahead than schedules may be',
  frequency_cap: 'the device has had as many messages as a cap lets through',
  daily_quota: 'the device has had its day’s messages of this class',
  expires_before_cap: 'it expires before a cap lets it through',
  expires_before_quota: 'it expires before the device’s next day',
  sender_quota: 'the sender’s quota of the day is used up',
  throttled: 'it waits for its turn',
  content_rejected: 'a content rule rejected it',
  content_review: 'a content rule holds it for review',
  class_review: 'every message of its class is reviewed',
  review_rejected: 'a reviewer rejected it',
  review_expired: 'nobody reviewed it in time',
  unknown_class: 'there is no such class',
  recalled: 'its sender took it back',
  replaced: 'a newer message with its collapse key took its place',
  duplicate: 'a message with its idempotency key was accepted before',
  template: 'a variable was missing, or the text got too long',
  device_gone: 'the device is not registered, or no longer',
  queue_full: 'too much waits for the device',
  undeliverable: 'the broker could not keep or send it',
};

/** A reason as a sentence without its full stop. */
export function reason(name: string): string {
  return REASONS[name] ?? name.replaceAll('_', ' ');
}

export const STATES: Record<State, { text: string; tone: Tone; mark: string }> = {
  held: { text: 'In review', tone: 'warn', mark: '❚❚' },
  scheduled: { text: 'Scheduled', tone: 'info', mark: '◷' },
  running: { text: 'Running', tone: 'info', mark: '▶' },
  finished: { text: 'Finished', tone: 'good', mark: '✓' },
  recalled: { text: 'Recalled', tone: 'warn', mark: '↩' },
  rejected: { text: 'Rejected', tone: 'bad', mark: '✕' },
  withdrawn: { text: 'Withdrawn', tone: 'warn', mark: '↩' },
};

export type Tone = 'plain' | 'info' | 'good' | 'warn' | 'bad';

export const STAGES: Record<string, { text: string; tone: Tone }> = {
  accepted: { text: 'Accepted', tone: 'plain' },
  queued: { text: 'Queued', tone: 'plain' },
  sent: { text: 'Sent', tone: 'info' },
  acknowledged: { text: 'Delivered', tone: 'good' },
  shown: { text: 'Shown', tone: 'good' },
  clicked: { text: 'Clicked', tone: 'good' },
  dropped: { text: 'Dropped', tone: 'bad' },
  expired: { text: 'Expired', tone: 'warn' },
  recalled: { text: 'Recalled', tone: 'warn' },
};

/** Whom a message is for. */
export function target(of: Target): string {
  if ('everyone' in of) return 'everyone';
  if ('device' in of) return `device ${of.device}`;
  if ('devices' in of) return `${count(of.devices.length)} named devices`;
  if ('alias' in of) return `alias ${of.alias}`;
  if ('list' in of) return `list ${of.list.slice(0, 8)}…`;
  if ('topic' in of) return `topic ${of.topic}`;
  return of.expression;
}

/** What the requirement of a state means for a reader: whether more will happen. */
export function isOpen(state: State): boolean {
  return state === 'held' || state === 'scheduled' || state === 'running';
}

/** The part of an id that tells two apart at a glance: the end, the beginning is the time. */
export function shortId(id: string): string {
  return id.length > 12 ? `…${id.slice(-8)}` : id;
}
