// Numbers, times and spans, as people read them.

const whole = new Intl.NumberFormat('en-US', { maximumFractionDigits: 0 });
const tenth = new Intl.NumberFormat('en-US', { maximumFractionDigits: 1 });

/** `1,234,567` */
export function count(value: number): string {
  return whole.format(value);
}

/** A rate a second: whole from ten on. */
export function rate(value: number): string {
  return value < 10 ? tenth.format(value) : whole.format(value);
}

/** `87.5%` of `whole`, or a dash where there is nothing to be part of. */
export function share(part: number, of: number): string {
  if (of === 0) return '–';
  const percent = (100 * part) / of;
  if (percent === 0 || percent === 100) return `${percent}%`;
  // Nothing that is there looks like nothing, and nothing missing like nothing missing.
  if (percent < 0.1) return '<0.1%';
  if (percent > 99.9 && percent < 100) return '>99.9%';
  return `${percent.toFixed(1)}%`;
}

/** `340 B`, `1.2 KiB`, `3.4 GiB` */
export function bytes(value: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let unit = 0;
  while (value >= 1024 && unit + 1 < units.length) {
    value /= 1024;
    unit += 1;
  }
  return unit === 0 ? `${value} B` : `${value.toFixed(1)} ${units[unit]}`;
}

/** `12 ms`, `1.2 s`, `3 m 20 s` */
export function millis(value: number): string {
  if (value < 1000) return `${whole.format(value)} ms`;
  if (value < 60_000) return `${tenth.format(value / 1000)} s`;
  return span(value / 1000);
}

/** `12 s`, `3 m 20 s`, `5 h 2 m`, `12 d 4 h` */
export function span(seconds: number): string {
  const s = Math.floor(seconds);
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} m ${s % 60} s`;
  if (s < 86_400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} m`;
  return `${Math.floor(s / 86_400)} d ${Math.floor((s % 86_400) / 3600)} h`;
}

const two = (value: number): string => String(value).padStart(2, '0');

/** Date and time here: `2026-11-23 10:04:05`. */
export function time(text: string): string {
  const at = new Date(text);
  if (Number.isNaN(at.getTime())) return text;
  const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
  return `${day} ${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
}

/** The time to the millisecond, for what follows closely. */
export function exact(text: string): string {
  const at = new Date(text);
  if (Number.isNaN(at.getTime())) return text;
  return `${time(text)}.${String(at.getMilliseconds()).padStart(3, '0')}`;
}

/** How long ago: `just now`, `4 m ago`, `in 2 h`. */
export function ago(text: string, now: number = Date.now()): string {
  const seconds = (now - new Date(text).getTime()) / 1000;
  const size = Math.abs(seconds);
  if (Number.isNaN(size)) return text;
  if (size < 5) return 'just now';
  const said =
    size < 60
      ? `${Math.floor(size)} s`
      : size < 3600
        ? `${Math.floor(size / 60)} m`
        : size < 86_400
          ? `${Math.floor(size / 3600)} h`
          : `${Math.floor(size / 86_400)} d`;
  return seconds >= 0 ? `${said} ago` : `in ${said}`;
}
