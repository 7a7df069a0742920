// The apps that there are, and which one is looked at.

import { Load } from './load.svelte';
import { push, type App } from './push';
import { route } from './route.svelte';

const KEPT = 'sextant.app';

class Apps {
  load = new Load<App[]>();
  #last: string | null = $state(localStorage.getItem(KEPT));

  /** The app of the address; elsewhere the one that was looked at last, if it is still there. */
  current: string | null = $derived.by(() => {
    const [daemon, kind, app] = route.at.path;
    if (daemon === 'push' && kind === 'app' && app !== undefined) return app;
    const known = this.load.value;
    if (!known) return null;
    if (this.#last !== null && known.some((app) => app.app === this.#last)) return this.#last;
    return known[0]?.app ?? null;
  });

  refresh(): Promise<void> {
    return this.load.run(async (signal) => {
      const { apps } = await push.apps(signal);
      return apps.sort((a, b) => a.app.localeCompare(b.app));
    });
  }

  remember(app: string): void {
    this.#last = app;
    localStorage.setItem(KEPT, app);
  }
}

export const apps = new Apps();
