// Whether somebody is logged in.

import { Problem, ask, whenLoggedOut } from './http';

interface Shown {
  version: string;
  daemons: string[];
  expires_at: string;
}

class Session {
  state: 'asking' | 'in' | 'out' | 'unreachable' = $state('asking');
  shown: Shown | null = $state.raw(null);
  /** Why a link or a token was refused. */
  refused: string | null = $state(null);

  constructor() {
    whenLoggedOut(() => (this.state = 'out'));
  }

  /** Spends the login link in the address, if there is one, and asks who is there. */
  async begin(): Promise<void> {
    const link = /^#login=([\w-]+)$/.exec(location.hash)?.[1];
    if (link !== undefined) {
      // At once, so that it stays in no history.
      history.replaceState(null, '', location.pathname);
      dispatchEvent(new HashChangeEvent('hashchange'));
      if (!(await this.logIn({ link }))) {
        // Whoever opens a used link may be logged in all the same.
        const refused = this.refused;
        await this.look();
        if (this.state === 'out') this.refused = refused;
      }
      return;
    }
    await this.look();
  }

  async look(): Promise<void> {
    try {
      this.shown = await ask<Shown>('/session');
      this.state = 'in';
      this.refused = null;
    } catch (error) {
      this.state = Problem.of(error).status === 401 ? 'out' : 'unreachable';
    }
  }

  async logIn(with_: { link: string } | { token: string }): Promise<boolean> {
    this.refused = null;
    try {
      await ask('/session', { method: 'POST', body: with_ });
    } catch (error) {
      this.refused = Problem.of(error).message;
      return false;
    }
    await this.look();
    return this.state === 'in';
  }

  async logOut(): Promise<void> {
    await ask('/session', { method: 'DELETE' }).catch(() => {});
    this.state = 'out';
  }
}

export const session = new Session();
