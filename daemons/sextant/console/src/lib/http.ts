// Asking the console's server, which asks the daemon. A refusal is a `Problem`, in words.

/** What went wrong, as the daemon (RFC 9457) or the network says it. */
export class Problem extends Error {
  constructor(
    /** The HTTP status; 0 if there was no answer at all. */
    readonly status: number,
    /** The kind, without what all kinds begin with. */
    readonly kind: string,
    readonly title: string,
    readonly detail: string,
    /** Whatever else the daemon said of it. */
    readonly more: Record<string, unknown> = {},
  ) {
    super(detail || title);
  }

  static of(error: unknown): Problem {
    if (error instanceof Problem) return error;
    return new Problem(0, 'unknown', 'Something failed', String(error));
  }
}

let onLoggedOut: () => void = () => {};

/** Has `then` called whenever the server says that nobody is logged in. */
export function whenLoggedOut(then: () => void): void {
  onLoggedOut = then;
}

async function problem(response: Response): Promise<Problem> {
  const text = await response.text().catch(() => '');
  try {
    const { type, title, detail, status: _, ...more } = JSON.parse(text) as Record<string, unknown>;
    const kind = String(type ?? '').split(/[:/]/).pop() ?? '';
    return new Problem(response.status, kind, String(title ?? ''), String(detail ?? ''), more);
  } catch {
    const title = response.statusText || `Status ${response.status}`;
    return new Problem(response.status, 'no-problem', title, text.slice(0, 300));
  }
}

export interface Asked {
  method?: string;
  /** Sent as JSON, but a file as it is. */
  body?: unknown;
  headers?: Record<string, string>;
  signal?: AbortSignal | undefined;
}

/** The answer's JSON; `undefined` where it has none. */
export async function ask<T>(path: string, asked: Asked = {}): Promise<T> {
  const { method = 'GET', body, headers = {}, signal } = asked;
  const init: RequestInit = { method, headers: { accept: 'application/json', ...headers } };
  if (signal) init.signal = signal;
  if (body instanceof Blob) {
    init.body = body;
  } else if (body !== undefined) {
    init.body = JSON.stringify(body);
    init.headers = { ...init.headers, 'content-type': 'application/json' };
  }
  let response: Response;
  try {
    response = await fetch(path, init);
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Problem(0, 'unreachable', 'No answer', 'Is `sextant up` running? It serves this page.');
  }
  if (!response.ok) {
    const what = await problem(response);
    if (what.status === 401 && path !== '/session') onLoggedOut();
    throw what;
  }
  const text = await response.text();
  return (text === '' ? undefined : JSON.parse(text)) as T;
}

/** `path` with those parameters that say something. */
export function withQuery(
  path: string,
  query: Record<string, string | number | boolean | null | undefined>,
): string {
  const pairs = Object.entries(query).filter(([, value]) => value !== undefined && value !== null && value !== '');
  const text = new URLSearchParams(pairs.map(([key, value]) => [key, String(value)])).toString();
  return text === '' ? path : `${path}?${text}`;
}
