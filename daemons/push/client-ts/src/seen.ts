/** Which messages came before. */

/** What an id came as. */
export type Kind = "message" | "recall";

/**
 * A memory of what came before. One that outlives the page keeps a message from being shown again
 * when the page is loaded again.
 */
export interface Seen {
  /** Whether this came before. */
  isSeen(id: string, kind: Kind): boolean | Promise<boolean>;
  /** This was given to the handlers, which returned. It is acknowledged after this. */
  record(id: string, kind: Kind): void | Promise<void>;
}

/** A memory of the ids that came last, or came again last. */
export class SeenIds implements Seen {
  readonly #capacity: number;
  /** In the order in which they came last: a set keeps that of insertion. */
  readonly #ids = new Set<string>();

  /** A memory of at most `capacity` ids. */
  constructor(capacity: number) {
    this.#capacity = Math.max(1, capacity);
  }

  isSeen(id: string, kind: Kind): boolean {
    const isSeen = this.#ids.has(`${kind} ${id}`);
    if (isSeen) {
      this.record(id, kind);
    }
    return isSeen;
  }

  record(id: string, kind: Kind): void {
    const key = `${kind} ${id}`;
    this.#ids.delete(key);
    this.#ids.add(key);
    if (this.#ids.size > this.#capacity) {
      const [oldest] = this.#ids;
      this.#ids.delete(oldest!);
    }
  }
}
