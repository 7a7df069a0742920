// The pages of a list with cursors: the way back is the cursors that were used.

export class Pages {
  #cursors: (string | null)[] = $state([null]);

  get depth(): number {
    return this.#cursors.length - 1;
  }

  get after(): string | null {
    return this.#cursors.at(-1) ?? null;
  }

  /** The next page, which begins at `next`, or the one before. */
  step(by: 1 | -1, next: string | null): void {
    if (by === 1 && next !== null) this.#cursors = [...this.#cursors, next];
    if (by === -1 && this.depth > 0) this.#cursors = this.#cursors.slice(0, -1);
  }

  first(): void {
    this.#cursors = [null];
  }
}
