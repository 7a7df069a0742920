/**
 * How long to wait before the next attempt: exponential back-off with full jitter.
 *
 * ```text
 *   attempt   1        2             3                        n
 *   wait      0 … b    0 … 2b        0 … 4b       …           0 … min(cap, b·2ⁿ⁻¹)
 * ```
 *
 * Every wait is drawn evenly from the whole interval, so that clients that were cut off at one
 * moment do not come back at one moment.
 */
export class Backoff {
  readonly #firstMaxMs: number;
  readonly #maxMs: number;
  #ceilingMs: number;

  /** Waits of at most `firstMaxMs` at first, and of at most `maxMs` in the end, milliseconds. */
  constructor(firstMaxMs: number, maxMs: number) {
    this.#firstMaxMs = Math.min(firstMaxMs, maxMs);
    this.#maxMs = maxMs;
    this.#ceilingMs = this.#firstMaxMs;
  }

  /** The next wait, milliseconds. The limit of the one after it is twice as long. */
  wait(): number {
    const wait = Math.random() * this.#ceilingMs;
    this.#ceilingMs = Math.min(this.#ceilingMs * 2, this.#maxMs);
    return wait;
  }

  /** Begins again: something succeeded. */
  reset(): void {
    this.#ceilingMs = this.#firstMaxMs;
  }
}

/** Waits, or fails with the signal's reason as soon as that is aborted. */
export function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) {
      reject(signal.reason);
      return;
    }
    const aborted = (): void => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", aborted);
      resolve();
    }, ms);
    signal?.addEventListener("abort", aborted, { once: true });
  });
}
