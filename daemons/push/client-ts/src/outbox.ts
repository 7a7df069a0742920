/**
 * What the broker is to be told: receipts and topics, kept until it has acknowledged them. One
 * publish is under way at a time; when the connection is lost it is as if it had not been sent. The
 * daemon counts a receipt once however often it comes.
 */

/** What happened to a message, and when. */
export interface Receipt {
  id: string;
  event: "shown" | "clicked";
  at: string;
}

/** A publish, below the device's own topic. */
export interface Publish {
  channel: "receipts" | "topics";
  payload: string;
}

/** How many receipts, and how many topics, one publish has at most. */
const AT_ONCE = 100;
/** How many topics wait to be said at most, and how long each may be. */
const TOPICS_MAX = 1000;
const TOPIC_LENGTH_MAX = 256;

/**
 * How often a publish is said that the broker refuses without a reason that tells whether it will
 * ever take it.
 */
const ATTEMPTS_MAX = 5;

type Sent = { receipts: number } | { topics: Map<string, boolean> };

export class Outbox {
  readonly #receiptsMax: number;
  readonly #receipts: Receipt[] = [];
  /** Topics to say something of, and whether they are wanted. */
  readonly #topics = new Map<string, boolean>();
  #sent: Sent | null = null;
  /** How often the oldest was refused. */
  #refusals = 0;

  constructor(receiptsMax: number) {
    this.#receiptsMax = receiptsMax;
  }

  get receiptsLength(): number {
    return this.#receipts.length;
  }

  get isEmpty(): boolean {
    return this.#receipts.length === 0 && this.#topics.size === 0;
  }

  push(receipt: Receipt): void {
    if (this.#receipts.length >= this.#receiptsMax) {
      throw new RangeError("too many receipts wait for the broker");
    }
    this.#receipts.push(receipt);
  }

  setTopic(topic: string, wanted: boolean): void {
    if (topic.length > TOPIC_LENGTH_MAX) {
      throw new RangeError(`a topic has at most ${TOPIC_LENGTH_MAX} characters`);
    }
    if (this.#topics.size >= TOPICS_MAX && !this.#topics.has(topic)) {
      throw new RangeError("too many topics wait for the broker");
    }
    this.#topics.set(topic, wanted);
  }

  /** The next publish, if none is under way: topics first, since they decide what comes. */
  next(): Publish | null {
    if (this.#sent !== null || this.isEmpty) {
      return null;
    }
    if (this.#topics.size > 0) {
      const topics = new Map([...this.#topics].slice(0, AT_ONCE));
      const named = (is: boolean): string[] =>
        [...topics].filter(([, wanted]) => wanted === is).map(([topic]) => topic);
      this.#sent = { topics };
      const payload = JSON.stringify({ subscribe: named(true), unsubscribe: named(false) });
      return { channel: "topics", payload };
    }
    const receipts = this.#receipts.slice(0, AT_ONCE);
    this.#sent = { receipts: receipts.length };
    return { channel: "receipts", payload: JSON.stringify({ receipts }) };
  }

  /** The broker has taken, or refused for good, what was under way. */
  done(): void {
    const sent = this.#sent;
    this.#sent = null;
    this.#refusals = 0;
    if (sent === null) {
      return;
    }
    if ("receipts" in sent) {
      this.#receipts.splice(0, sent.receipts);
      return;
    }
    for (const [topic, wanted] of sent.topics) {
      // What was said otherwise meanwhile is still to be said.
      if (this.#topics.get(topic) === wanted) {
        this.#topics.delete(topic);
      }
    }
  }

  /** The broker refused what was under way, perhaps for good: whether that is given up. */
  refused(): boolean {
    this.#refusals++;
    const isGivenUp = this.#refusals >= ATTEMPTS_MAX;
    if (isGivenUp) {
      this.done();
    }
    return isGivenUp;
  }

  /** The connection is lost, and what was under way with it. */
  lost(): void {
    this.#sent = null;
  }

  /** What was not acknowledged. */
  takeReceipts(): Receipt[] {
    this.#sent = null;
    return this.#receipts.splice(0);
  }
}
