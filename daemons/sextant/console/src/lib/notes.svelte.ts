// Short notes of what was done, said once and gone after a while.

interface Note {
  id: number;
  text: string;
  tone: 'good' | 'bad';
}

const SHOWN_MS = 6000;
const NOTES_MAX = 4;

class Notes {
  all: Note[] = $state([]);
  #next = 0;

  say(text: string, tone: 'good' | 'bad' = 'good'): void {
    const id = this.#next++;
    this.all = [...this.all.slice(-(NOTES_MAX - 1)), { id, text, tone }];
    setTimeout(() => this.drop(id), SHOWN_MS);
  }

  drop(id: number): void {
    this.all = this.all.filter((note) => note.id !== id);
  }
}

export const notes = new Notes();
