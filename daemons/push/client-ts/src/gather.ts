/**
 * Requests as they come, several at a time: as many as are there, up to a limit. What comes slowly
 * does not wait for more than a moment.
 */

/** How many are given at once. */
const GATHERED_MAX = 500;
/** How long more is waited for once there is one, milliseconds. */
const LINGER_MS = 5;

const LATE = Symbol("late");

export class Gatherer<T> {
  readonly #iterator: Iterator<T> | AsyncIterator<T>;
  /** The next one, asked for and not given yet. */
  #asked: Promise<IteratorResult<T>> | null = null;
  #ended = false;

  constructor(values: Iterable<T> | AsyncIterable<T>) {
    this.#iterator =
      Symbol.asyncIterator in values ? values[Symbol.asyncIterator]() : values[Symbol.iterator]();
  }

  /** At least one, or none at the end. */
  async next(): Promise<T[]> {
    const gathered: T[] = [];
    let timer: ReturnType<typeof setTimeout> | undefined;
    let late: Promise<typeof LATE> | undefined;
    try {
      while (!this.#ended && gathered.length < GATHERED_MAX) {
        this.#asked ??= Promise.resolve(this.#iterator.next());
        const next = await (late ? Promise.race([this.#asked, late]) : this.#asked);
        if (next === LATE) {
          break;
        }
        this.#asked = null;
        if (next.done) {
          this.#ended = true;
        } else {
          gathered.push(next.value);
          late ??= new Promise((resolve) => {
            timer = setTimeout(() => resolve(LATE), LINGER_MS);
          });
        }
      }
    } finally {
      clearTimeout(timer);
    }
    return gathered;
  }

  /** No more is wanted. */
  async return(): Promise<void> {
    if (!this.#ended && this.#asked === null) {
      this.#ended = true;
      await this.#iterator.return?.();
    }
    // One that was asked for and never comes must not keep a loop from ending.
    this.#asked?.catch(() => undefined);
  }
}
