// Something that is loaded: not yet, there, or not to be had. A newer load makes an older one void.

import { untrack } from 'svelte';
import { Problem } from './http';

export class Load<T> {
  value: T | undefined = $state.raw(undefined);
  problem: Problem | null = $state.raw(null);
  busy = $state(false);
  #current: AbortController | null = null;
  #make: ((signal: AbortSignal) => Promise<T>) | null = null;

  /** Loads by `make`; what is there stays until the answer comes. */
  async run(make: (signal: AbortSignal) => Promise<T>): Promise<void> {
    this.#current?.abort();
    const current = new AbortController();
    this.#current = current;
    this.#make = make;
    this.busy = true;
    try {
      const value = await make(current.signal);
      if (current.signal.aborted) return;
      this.value = value;
      this.problem = null;
    } catch (error) {
      if (current.signal.aborted) return;
      this.problem = Problem.of(error);
    }
    this.busy = false;
  }

  /** Loads the same once more. */
  again = async (): Promise<void> => {
    if (this.#make) await this.run(this.#make);
  };

  /** Forgets what is there, so that a fresh page does not show the last one's. */
  reset(): void {
    this.stop();
    this.value = undefined;
    this.problem = null;
  }

  stop(): void {
    this.#current?.abort();
    this.busy = false;
  }
}

/** Calls `what` again and again, `pauseMs` after it has ended, but not while nobody looks. */
export function poll(what: () => Promise<void>, pauseMs: number): () => void {
  let stopped = false;
  let timer: ReturnType<typeof setTimeout> | undefined;
  const turn = async (): Promise<void> => {
    if (!document.hidden) await what();
    if (!stopped) timer = setTimeout(() => void turn(), pauseMs);
  };
  // An effect that polls does not depend on what is read by it.
  untrack(() => void turn());
  return () => {
    stopped = true;
    clearTimeout(timer);
  };
}
