/**
 * What can go wrong: the daemon refuses, the network fails, or one side says what the other does
 * not understand.
 */

/** An error of the daemon, as RFC 9457 has it. */
export interface Problem {
  /** What kind of problem it is, as an address. */
  type: string;
  /** The kind, in words. */
  title: string;
  /** The HTTP status. */
  status: number;
  /** What is wrong this time. */
  detail: string;
  /** What else the daemon says of it, such as `rule`. */
  [more: string]: unknown;
}

/** The daemon, or a proxy before it, answered with an error. */
export class ProblemError extends Error {
  override readonly name = "ProblemError";
  /** What it said. */
  readonly problem: Problem;
  /** When the daemon asks to be asked again, milliseconds. */
  readonly retryAfterMs: number | null;

  constructor(problem: Problem, retryAfterMs: number | null = null) {
    super(`${problem.status} ${problem.title}${problem.detail && `: ${problem.detail}`}`);
    this.problem = problem;
    this.retryAfterMs = retryAfterMs;
  }
}

/** No connection, no answer in time, or half of one. What was asked may have been done. */
export class TransportError extends Error {
  override readonly name = "TransportError";

  constructor(cause: unknown) {
    const why = cause instanceof Error ? cause.message : String(cause);
    super(`the daemon gave no answer: ${why}`, { cause });
  }
}

/** The answer has a form that this version does not know. What was asked was done. */
export class AnswerError extends Error {
  override readonly name = "AnswerError";

  constructor(why: string) {
    super(`the daemon's answer is not understood: ${why}`);
  }
}

/** The request was not made, since it cannot be: an address or a key is not of the form. */
export class RequestError extends Error {
  override readonly name = "RequestError";

  constructor(why: string) {
    super(`the request cannot be made: ${why}`);
  }
}

/** The problem of an answer; one without details if its body is none. */
export function parseProblem(status: number, title: string, body: string): Problem {
  const none = { type: "about:blank", title: title || "an answer without a reason", detail: "" };
  try {
    const told: unknown = JSON.parse(body);
    if (typeof told === "object" && told !== null && !Array.isArray(told)) {
      // The status that counts is that of the answer: a proxy may have changed it.
      return { ...none, ...told, status };
    }
  } catch {
    // It is no problem of the daemon, but a page of a proxy.
  }
  return { ...none, status };
}

/** The longest `Retry-After` that is waited for; after a longer one the error is the caller's. */
const RETRY_AFTER_MAX_MS = 60_000;

/**
 * How long to wait at least before the same request may have an answer, milliseconds; `null` if
 * that will not help, or not soon.
 */
export function worthRepeatingAfter(error: unknown): number | null {
  if (error instanceof TransportError) {
    return 0;
  }
  if (error instanceof ProblemError && [429, 503].includes(error.problem.status)) {
    const atLeast = error.retryAfterMs ?? 0;
    return atLeast <= RETRY_AFTER_MAX_MS ? atLeast : null;
  }
  return null;
}
